"""Functions and shapes by small Kolmogorov-Arnold networks, an MLP and a quadratic net.

  python -m experiments.run function_fitting --scale=proxy --workers=2

Rows, for functions and shapes of elas_jax/data/functions.py: two hidden layers of 16 of
each kind, and mlp_equal with as many parameters as the B-spline network. Beside the table
..._fits.png has the nets of one input and their functions, ..._edges.png the functions on
the edges of the first layers for exp_sin_square, ..._boundaries.png what the nets make of
the plane; all of the first seed, drawn where the folder of the runs has them.
Reproduces: no table. The functions are those of KAN (arXiv 2404.19756) and two more; the
seven of S-KAN are not known to us, so there is no paper scale.
Hardware: proxy about 15 minutes on a CPU core.
"""

import dataclasses
import pathlib

from configs.functions import FUNCTIONS, SHAPES
from elas_jax.run import function_plots
from elas_jax.tables.entries import Entry, ranking
from elas_jax.tables.figures import trained
from elas_jax.tables.plan import At, Line
from elas_jax.tables.table import Row, Table
from experiments import networks

OTHERS = ('quadratic', 'bspline', 'chebyshev', 'fourier', 'wavelet', 'fast', 'af_kan')
OTHERS = (*OTHERS, 's_kan')
# Of an MLP with the parameters of the B-spline network, by the inputs and outputs.
WIDTHS = {'bessel': 52, 'exp_sin_square': 53, 'two_spirals': 54, 'rings': 54}
# exp(sin(pi x1) + x2^2): a first layer of a KAN can hold both inner functions.
EDGES_OF = 'exp_sin_square'
# Whose layers are sums of functions of one input each; AF-KAN's are not.
ADDITIVE = ('bspline', 'chebyshev', 'fourier', 'wavelet', 'fast', 's_kan')
RMSE, ACCURACY = ('eval/rmse', 'RMSE', 5), networks.ACCURACY[0]
PROXIES = ('bessel', 'exp_sin_square', *SHAPES)  # one with oscillations, one composed


def equal(size: str) -> Row:
  return Row('mlp_equal', 'mlp', {'model.width': WIDTHS[size]})


def rows(at: At) -> list[Row]:
  own = dataclasses.replace(equal(at.size), rate_of=equal(networks.rates_size(at.size)))
  result = [Row('mlp', 'mlp'), own, *(Row(name, name) for name in OTHERS)]
  return result[:2] if at.scale == 'smoke' and at.size in SHAPES else result


def draw(lines: list[Line], runs: pathlib.Path, path: pathlib.Path) -> None:
  one_input = [name for name, inputs in FUNCTIONS.items() if inputs == 1]
  parts = {
    'fits': ([x for x in lines if x.size in one_input], function_plots.fit),
    'edges': (
      [x for x in lines if x.size == EDGES_OF and x.row.method in ADDITIVE],
      function_plots.edges,
    ),
    'boundaries': ([x for x in lines if x.size in SHAPES], function_plots.boundary),
  }
  for name, (chosen, panel) in parts.items():
    trained(chosen, runs, path.with_name(f'{path.stem}_{name}.png'), panel)


def conclude(entries: list[Entry]) -> list[str]:
  lines = []
  for size in dict.fromkeys(entry.size for entry in entries):
    metric, best = (ACCURACY, max) if size in SHAPES else (RMSE, min)
    of_size = [x for x in entries if x.size == size]
    if any(metric[0] in x.mean for x in of_size):
      lines.append(f'{size}: {ranking(of_size, metric, best)}')
  return lines


TABLE = Table(
  title='Fitting functions and telling shapes apart',
  rows=rows,
  family=networks.NETWORKS,
  scales=networks.scales(
    networks.POINTS,
    proxy=PROXIES,
    smoke=('bessel', 'rings'),
    seeds=3,
    steps=1000,
  ),
  metrics=(RMSE, ACCURACY, networks.ACCURACY[2]),
  cells=networks.cells,
  conclude=conclude,
  draw=draw,
  notes=(
    '4000 points without noise, 800 of them for validation, the same for all rows and '
    'seeds; a seed is one start and one order of the points.',
    'The learning rate of a row is that of exp_sin_square, also for the shapes. One seed '
    'of half the steps can choose badly: mlp_equal has 0.3, at which its three seeds end '
    'worse than the three that are recorded at 0.1.',
    'KANs have no LayerNorm here: it would leave nothing of one input.',
    'mlp_equal: the width at which it has the parameters of the B-spline network; the '
    'others have what their kind takes at width 16. mlp and quadratic have SiLU.',
    's_kan is our reading of S-KAN, in its first phase: all families of its pool.',
  ),
)
