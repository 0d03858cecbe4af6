"""AF-KAN by its parts: functions, activations, reductions, grids and normalisations.

  python -m experiments.run af_kan_ablation --scale=proxy --workers=2
  python -m experiments.run af_kan_ablation --scale=paper \
      --config.data.source.data_dir=TFDS_FOLDER

Rows: the published default but for its min-max, which here is over each example and not the
batch (base: quad1, silu, global_attn, grid and order 3, LayerNorm), and what is different
from it. All have the learning rate of base.
Reproduces: the questions of the ablations of AF-KAN (arXiv 2503.06112), whose tables are
not known to us.
Hardware: proxy (digits) about 8 minutes on a CPU core; paper (mnist, fashion_mnist) not yet
run.
"""

from elas_jax.ops.kan.af import COMBINATIONS, FUNCTIONS
from elas_jax.tables.entries import Entry, ranking
from elas_jax.tables.plan import At
from elas_jax.tables.table import Row, Table
from experiments import networks

EPOCHS = {'mnist': 25, 'fashion_mnist': 35}
METHOD, BASE = 'af_kan', 'base'
BOTH = 'global_attn,spatial_attn'
VARIANTS = {
  'function': [name for name in FUNCTIONS if name != 'quad1'],
  'activation': [
    'softplus',
    'sigmoid',
    'relu',
    'leaky_relu',
    'elu',
    'gelu',
    'selu',
    'tanh',
  ],
  'reduction': ['spatial_attn', 'multistep'],
  'function_norm': ['none', 'batch'],
  'data_norm': ['none'],
}
EXACT = {'gelu': {'activation.approximate': False}}  # as PyTorch's
# Group -> label -> fields of model.linear that are not the default's.
CHANGES = {
  field: {f'{field}_{value}': {field: value} | EXACT.get(value, {}) for value in values}
  for field, values in VARIANTS.items()
} | {
  'grid': {
    f'grid_{grid}_order_{order}': {'grid': grid, 'order': order}
    for grid, order in ((1, 1), (2, 2), (5, 3), (5, 5), (8, 3))
  },
  'both_attentions': {
    f'both_attentions_{name}': {'reduction': BOTH, 'combine': name} for name in COMBINATIONS
  },
}


def rows(at: At) -> list[Row]:
  recipe = networks.epochs(EPOCHS[at.size]) if at.scale == 'paper' else {}
  result = [Row(BASE, METHOD, recipe)]
  for changes in CHANGES.values():
    for label in list(changes)[: 1 if at.scale == 'smoke' else None]:
      fields = {f'model.linear.{name}': value for name, value in changes[label].items()}
      result.append(Row(label, METHOD, recipe | fields))
  return result


def conclude(entries: list[Entry]) -> list[str]:
  """The order of mean accuracy of each group of rows, with the base among them."""
  lines = []
  for size in dict.fromkeys(entry.size for entry in entries):
    of_size = {x.label: x for x in entries if x.size == size}
    for group, changes in CHANGES.items():
      of_group = [of_size[label] for label in (BASE, *changes) if label in of_size]
      if all(entry.mean for entry in of_group):
        lines.append(f'{group} ({size}): {ranking(of_group, networks.ACCURACY[0])}')
  return lines


TABLE = Table(
  title='AF-KAN by its parts',
  rows=rows,
  family=networks.NETWORKS,
  scales=networks.scales(networks.IMAGES, proxy=('digits',), paper=tuple(EPOCHS), seeds=3),
  cells=networks.flops_cell,
  conclude=conclude,
  notes=(
    'All rows have the learning rate of base.',
    'function_norm_batch: the last batch of an evaluation is filled up with rows of zeros, '
    'which its min-max sees.',
    'both_attentions_NAME: global and spatial attention, joined in every layer by NAME.',
    'The validation split of digits has 360 rows: one of them is 0.28 % of accuracy, so '
    'most differences here are within what a seed makes.',
    "The paper's conclusions, as a summary of it has them: SiLU is a strong default, quad1 "
    'the robust function, a small grid and order 3 best, and both normalisations needed.',
  ),
)
