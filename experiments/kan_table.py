"""Kolmogorov-Arnold networks and an MLP on images, at equal structure and equal parameters.

  python -m experiments.network_rates --scale=proxy  # first: it chooses learning rates
  python -m experiments.kan_table --scale=smoke
  python -m experiments.kan_table --scale=proxy
  python -m experiments.kan_table --scale=paper --config.data.path=TFDS_FOLDER

Rows: one hidden layer of 64 of every kind (at the paper's scale the published networks),
and, as NAME_equal, the same with the width at which it has as many parameters as the
B-spline network of 64.
Reproduces: at the paper's scale the table of the README of BSRBF-KAN (MNIST 15 epochs,
Fashion-MNIST 25; batch 64, AdamW 1e-3, times 0.8 an epoch); AF-KAN's own tables are not
public as text.
Hardware: proxy (digits) two CPU cores, 140 runs of 500 steps, about 13 minutes on one of
them; paper two cores or a GPU, not yet run.
Expected: none yet.
"""

from typing import Any

from elas_jax.cli import run_command
from elas_jax.config import Config
from experiments import networks, published, report
from experiments.harness import Experiment, main
from experiments.runs import Row, Setting

METHODS = (
  'mlp',
  'bspline',
  'chebyshev',
  'polynomial',
  'fourier',
  'wavelet',
  'fast',
  'faster',
  'bsrbf',
  'relu_kan',
  'af_kan',
  'skan',
  'gr_kan',
  's_kan',
)
BUDGET_OF = 'bspline'
PAIRS = tuple(
  (name + suffix, 'mlp' + suffix)
  for suffix in ('', '_equal')
  for name in ('af_kan', 'bspline')
)
EPOCHS = {'mnist': 15, 'fashion_mnist': 25}


def rows(setting: Setting, size: str) -> list[Row]:
  recipe = paper_recipe(size) if setting.scale == 'paper' else {}
  model = lambda method: setting.config(method, size, recipe).model
  budget, result = networks.parameters(model(BUDGET_OF)), []
  for method in METHODS:
    values = published.NETWORKS.get(method, {})
    result.append(Row(method, method, recipe, published=values))
    if setting.scale == 'smoke' and method != METHODS[0]:
      continue
    # The groups of a rational layer divide its width.
    step = model(method).rational_groups if method == 'gr_kan' else 1
    width = networks.equal_width(model(method), budget, step)
    result.append(Row(f'{method}_equal', method, recipe | {'model.width': width}))
  return result


def paper_recipe(size: str) -> dict[str, Any]:
  """Steps of 64 rows; the rate falls by 0.8 an epoch, here a little in each step."""
  steps = EPOCHS[size] * 60_000 // 64
  return {
    'train.steps': steps,
    'optimizer.schedule': 'wsd',
    'optimizer.decay_shape': 'exponential',
    'optimizer.warmup_steps': 0,
    'optimizer.decay_steps': steps,
    'optimizer.final_fraction': 0.8 ** EPOCHS[size],
  }


def cells(config: Config, outcomes: list[dict[str, Any]]) -> dict[str, str]:
  return {'width': str(config.model.width)} | networks.flops_cell(config, outcomes)


def conclude(entries: list[dict[str, Any]]) -> tuple[Any, list[str]]:
  labels = {entry['label'] for entry in entries}
  pairs = tuple(pair for pair in PAIRS if labels.issuperset(pair))
  gaps, lines = report.gaps(entries, pairs, networks.ACCURACY[:2])
  best, ranks = {}, []
  for size in dict.fromkeys(entry['size'] for entry in entries):
    for suffix, name in (('', 'equal structure'), ('_equal', 'equal parameters')):
      labels = [method + suffix for method in METHODS]
      means = {
        e['label']: e['mean']['accuracy_percent']
        for e in entries
        if e['size'] == size and e['label'] in labels and e['mean']
      }
      if len(means) == len(labels):  # a smoke run has not all
        order = sorted(means, key=means.get, reverse=True)
        best[f'{size}, {name}'] = order
        ranks.append(f'By mean accuracy ({size}, {name}): {", ".join(order)}.')
  return {'gaps': gaps, 'order': best}, lines + ranks


EXPERIMENT = Experiment(
  name='kan_table',
  title='Kolmogorov-Arnold networks and an MLP on images',
  rows=rows,
  family=networks.NETWORKS,
  scales=networks.scales(networks.IMAGES, proxy=('digits',), paper=tuple(EPOCHS)),
  metrics=networks.ACCURACY,
  cells=cells,
  conclude=conclude,
  notes=(
    f'NAME_equal: the width at which a network has the parameters of {BUDGET_OF}, as near '
    'as it comes, within 2 % at the proxy and the paper scale (a smoke run is too narrow).',
    'Both rows of a kind have one learning rate, that of the narrow one.',
    'The validation split of digits has 360 rows: one of them is 0.28 % of accuracy.',
    'AF-KAN (arXiv 2503.06112), by its abstract, is clearly better than an MLP and other '
    'KANs at equal parameters, and competitive with 6 to 10 times fewer; its tables are '
    'not known to us.',
    'Differences from the published networks: wavelets are shared by the outputs of a '
    'layer, and s_kan is our reading of S-KAN; see elas_jax/layers/kan.py. GR-KAN has its '
    'function before each layer.',
  ),
)

if __name__ == '__main__':
  run_command(lambda: main(EXPERIMENT))
