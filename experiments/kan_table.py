"""Kolmogorov-Arnold networks and an MLP on images, at equal structure and equal parameters.

  python -m experiments.network_rates --scale=proxy  # first: it chooses learning rates
  python -m experiments.kan_table --scale=smoke
  python -m experiments.kan_table --scale=proxy
  python -m experiments.kan_table --scale=paper \
      --config.data.source.data_dir=TFDS_FOLDER

Rows: one hidden layer of 64 of every kind (at the paper's scale the published networks),
and, as NAME_equal, the same with the width at which it has as many parameters as the
B-spline network of 64.
Reproduces: at the paper's scale the table of the README of BSRBF-KAN (MNIST 15 epochs,
Fashion-MNIST 25; batch 64, AdamW 1e-3, times 0.8 an epoch); AF-KAN's own tables are not
public as text.
Hardware: proxy (digits) two CPU cores, 135 runs of 500 steps, about 13 minutes on one of
them; paper two cores or a GPU, not yet run.
Expected: experiments/results/kan_table/proxy.md.
"""

from typing import Any

from elas_jax.config.cli import run_command
from experiments import networks, published, report
from experiments.harness import Experiment, main
from experiments.rates import RATE, chosen_rate
from experiments.runs import Row, Setting

MODELS = (
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
OWN_RATES = ('mlp', 'af_kan')  # of the wider nets too
EPOCHS = {'mnist': 15, 'fashion_mnist': 25}


def rows(setting: Setting, size: str) -> list[Row]:
  recipe = paper_recipe(EPOCHS[size]) if setting.scale == 'paper' else {}
  model = lambda method: setting.config(method, size, recipe).model
  budget, result = networks.parameters(model(BUDGET_OF)), []
  for method in MODELS:
    values = published.NETWORKS.get(method, {})
    result.append(Row(method, method, recipe, published=values))
    if setting.scale == 'smoke' and method != MODELS[0]:
      continue
    # The groups of a rational layer divide its width.
    step = getattr(model(method).linear, 'groups', 1)
    width = networks.equal_width(model(method), budget, step)
    fields = recipe | {'model.width': width}
    if setting.scale == 'proxy' and method in OWN_RATES:
      name = networks.rate_name(size, f'{method}_equal')
      fields |= {RATE: chosen_rate(name, setting.rates)}
    result.append(Row(f'{method}_equal', method, fields))
  return result


def paper_recipe(epochs: int) -> dict[str, Any]:
  """Batches of 64 rows; the rate falls by 0.8 an epoch, here a little in each step."""
  steps = epochs * 60_000 // 64
  return {
    'train.steps': steps,
    'schedule': 'wsd',
    'schedule.decay_shape': 'exponential',
    'schedule.warmup_steps': 0,
    'schedule.decay_steps': steps,
    'schedule.final_fraction': 0.8**epochs,
  }


def conclude(entries: list[dict[str, Any]]) -> tuple[Any, list[str]]:
  known = {entry['label'] for entry in entries}
  pairs = tuple(pair for pair in PAIRS if known.issuperset(pair))
  gaps, lines = report.gaps(entries, pairs, networks.ACCURACY[:2])
  lines += [verdict(gap) for gap in gaps if gap['rows'][0].startswith('af_kan')]
  best = {}
  for size in dict.fromkeys(entry['size'] for entry in entries):
    for suffix, name in (('', 'equal structure'), ('_equal', 'equal parameters')):
      labels = [method + suffix for method in MODELS]
      of_kind = [e for e in entries if e['size'] == size and e['label'] in labels]
      if len(of_kind) == len(labels):  # a smoke run has not all
        best[f'{size}, {name}'], line = report.ranking(of_kind, networks.ACCURACY[0])
        lines.append(f'{name} ({size}): {line}')
  return {'gaps': gaps, 'order': best}, lines


def verdict(gap: dict[str, Any]) -> str:
  """Whether AF-KAN is at least as accurate as the MLP with as many parameters."""
  mean = gap['mean']['accuracy_percent']
  return (
    f'AF-KAN {"is" if mean >= 0 else "is NOT"} at least as accurate as the MLP, by the '
    f'mean of {len(gap["seeds"])} seeds ({gap["rows"][0]}, {gap["size"]}): {mean:+.2f}.'
  )


EXPERIMENT = Experiment(
  name='kan_table',
  title='Kolmogorov-Arnold networks and an MLP on images',
  rows=rows,
  family=networks.NETWORKS,
  scales=networks.scales(networks.IMAGES, proxy=('digits',), paper=tuple(EPOCHS)),
  metrics=networks.ACCURACY,
  cells=networks.cells,
  conclude=conclude,
  notes=(
    f'NAME_equal: the width at which a network has the parameters of {BUDGET_OF}, as near '
    'as it comes, within 2 % at the proxy and the paper scale (a smoke run is too narrow).',
    'Both rows of a kind have one learning rate, that of the narrow one, but for mlp and '
    'af_kan, whose wider nets have rates of their own. At equal structure too those two '
    'have nearly equal parameters.',
    'The validation split of digits has 360 rows: one of them is 0.28 % of accuracy.',
    'AF-KAN (arXiv 2503.06112), by its abstract, is clearly better than an MLP and other '
    'KANs at equal parameters, and competitive with 6 to 10 times fewer; its tables are '
    'not known to us.',
    'Differences from the published networks: wavelets are shared by the outputs of a '
    'layer, and s_kan is our reading of S-KAN; see elas_jax/systems/linears. GR-KAN has '
    'its function before each layer.',
  ),
)

if __name__ == '__main__':
  run_command(lambda: main(EXPERIMENT))
