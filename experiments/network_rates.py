"""Picks the learning rates of the networks on rows at the proxy scale, before their tables.

  python -m experiments.network_rates --scale=smoke
  python -m experiments.network_rates --scale=proxy

The same five rates for every kind of network, for half of the steps and with a seed that no
table uses, by validation loss; what is best at an edge of the grid is said to be. Stacks,
vit and kat on digits have one rate each. Functions and shapes are one small net, whose rate
is that of exp_sin_square. experiments.quadratic_table has rates of its own, row by row,
since they are what its nets bear or do not bear. The paper's scale has those of configs/.
Hardware: two CPU cores, 125 runs of 250 or 500 steps, about 18 minutes on one of them.
Expected: experiments/results/network_rates/proxy.md.
"""

from typing import Any

from elas_jax.cli import run_command
from experiments import networks
from experiments.function_fitting import METHODS as FITS
from experiments.harness import Experiment, main
from experiments.kan_table import METHODS as KANS
from experiments.kat_vs_mlp import METHODS as TRANSFORMERS
from experiments.rates import RATE, choose
from experiments.runs import Row, Setting

GRID = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
SEED = 1000
DIGITS, FUNCTION = (networks.RATE_SIZES[x] for x in (networks.IMAGES, networks.POINTS))
METHODS = {DIGITS: tuple(dict.fromkeys((*KANS, *TRANSFORMERS))), FUNCTION: FITS}
STEPS = {DIGITS: 250, FUNCTION: 500}  # half of the tables'


def rows(setting: Setting, size: str) -> list[Row]:
  file = networks.POINTS if size == FUNCTION else networks.IMAGES
  smoke = setting.scale == 'smoke'
  steps = networks.SMOKE['train.steps'] if smoke else STEPS[size]
  length = {'train.steps': steps, 'eval.every': steps}
  return [
    Row(
      f'{method}_{rate:g}',
      method,
      {RATE: rate} | length,
      config=f'{file}:{{size}},{{method}}',
    )
    for method in METHODS[size][: 2 if smoke else None]
    for rate in GRID
  ]


def conclude(entries: list[dict[str, Any]]) -> tuple[Any, list[str]]:
  name = lambda entry: networks.rate_name(entry['size'], entry['method'])
  chosen = choose(entries, 'eval/loss', name)
  edge = lambda x: ' (at the edge)' if x['at_the_edge_of_the_grid'] else ''
  return chosen, [f'{n}: {x["learning_rate"]:g}{edge(x)}' for n, x in chosen.items()]


EXPERIMENT = Experiment(
  name='network_rates',
  title='Learning rates of networks on rows: a grid per kind',
  rows=rows,
  family=networks.NETWORKS,
  scales=networks.scales('', proxy=(DIGITS, FUNCTION), paper=()),
  metrics=(('eval/loss', 'validation loss', 4), *networks.ACCURACY[:1]),
  conclude=conclude,
  first_seed=SEED,
  seeds=1,
)

if __name__ == '__main__':
  run_command(lambda: main(EXPERIMENT))
