"""Functions and shapes by small Kolmogorov-Arnold networks, an MLP and a quadratic net.

  python -m experiments.network_rates --scale=proxy  # first: it chooses learning rates
  python -m experiments.function_fitting --scale=smoke
  python -m experiments.function_fitting --scale=proxy

Rows, for functions and shapes of elas_jax/data/functions.py: two hidden layers of 16 of
each kind, and mlp_equal with as many parameters as the B-spline network. SCALE_fits.png has
the nets of one input beside their functions, SCALE_edges.png the functions on the edges of
the first layers for exp_sin_square, SCALE_boundaries.png what the nets make of the plane;
all of the first seed, drawn where the folder of the runs has them.
Reproduces: no table. The functions are those of KAN (arXiv 2404.19756) and two more; the
seven of S-KAN are not known to us, so there is no paper scale.
Hardware: proxy two CPU cores, 120 runs of 1000 steps, about 12 minutes on one of them.
Expected: experiments/results/function_fitting/proxy.md.
"""

from typing import Any

from configs.functions import SHAPES
from elas_jax.config.cli import run_command
from experiments import networks, report
from experiments.function_figures import draw
from experiments.harness import Experiment, main
from experiments.rates import RATE, chosen_rate
from experiments.runs import Row, Setting

MODELS = (
  'mlp',
  'quadratic',
  'bspline',
  'chebyshev',
  'fourier',
  'wavelet',
  'fast',
  'af_kan',
  's_kan',
)
BUDGET_OF = 'bspline'
PROXIES = ('bessel', 'exp_sin_square', *SHAPES)  # one with oscillations, one composed


def rows(setting: Setting, size: str) -> list[Row]:
  model = lambda method: setting.config(method, size, {}).model
  budget = networks.parameters(model(BUDGET_OF))
  width = networks.equal_width(model('mlp'), budget)
  fields = {'model.width': width}
  if setting.scale == 'proxy':
    fields |= {RATE: chosen_rate(networks.rate_name(size, 'mlp_equal'), setting.rates)}
  equal = Row('mlp_equal', 'mlp', fields)
  result = [Row('mlp', 'mlp'), equal, *(Row(name, name) for name in MODELS[1:])]
  return result[:2] if setting.scale == 'smoke' and size in SHAPES else result


def conclude(entries: list[dict[str, Any]]) -> tuple[Any, list[str]]:
  found, lines = {}, []
  for size in dict.fromkeys(entry['size'] for entry in entries):
    metric, best = (networks.FITS[1], max) if size in SHAPES else (networks.FITS[0], min)
    of_size = [e for e in entries if e['size'] == size]
    if any(metric[0] in entry['mean'] for entry in of_size):
      found[size], line = report.ranking(of_size, metric, best)
      lines.append(f'{size}: {line}')
  return {'order': found}, lines


EXPERIMENT = Experiment(
  name='function_fitting',
  title='Fitting functions and telling shapes apart',
  rows=rows,
  family=networks.NETWORKS,
  scales=networks.scales(
    networks.POINTS,
    proxy=PROXIES,
    smoke=('bessel', 'rings'),
    paper=(),
    seeds=3,
    steps=1000,
  ),
  metrics=networks.FITS,
  cells=networks.cells,
  conclude=conclude,
  draw=draw,
  notes=(
    '4000 points without noise, 800 of them for validation, the same for all rows and '
    'seeds; a seed is one start and one order of the points.',
    'The learning rate of a row is that of exp_sin_square, also for the shapes: one seed, '
    'five rates. KANs have no LayerNorm here: it would leave nothing of one input.',
    'mlp_equal: the width at which it has the parameters of the B-spline network; the '
    'others have what their kind takes at width 16. mlp and quadratic have SiLU.',
    's_kan is our reading of S-KAN, in its first phase: all families of its pool.',
  ),
)

if __name__ == '__main__':
  run_command(lambda: main(EXPERIMENT))
