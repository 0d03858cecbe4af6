"""Picks the learning rate of every method at the proxy scale, before the other tables.

  python -m experiments.learning_rates --scale=proxy

Half, once and twice a base rate per method (experiments/rates.py), for a quarter of the
steps and with a seed that no table uses, by validation bits per byte. The other scripts
read experiments/results/learning_rates/proxy.json. A rate at the edge of its grid says
that the best may lie beyond. cola_m computes what cola does and takes its rate. The
paper's scale has published rates instead, those of configs/c4.py.
Hardware: two CPU cores, 39 runs of 150 steps, not yet timed.
Expected: none yet.
"""

from typing import Any

from elas_jax.cli import run_command
from elas_jax.errors import UserError
from experiments.harness import Experiment, main
from experiments.rates import BASE, GRID, choose
from experiments.runs import Row, Setting


def rows(setting: Setting, size: str) -> list[Row]:
  if setting.scale == 'paper':
    raise UserError(
      '--scale=paper: takes the published rates of configs/c4.py; must be proxy or smoke'
    )
  result = []
  for method, base in BASE.items():
    for factor in GRID:
      fields = {'optimizer.learning_rate': base * factor}
      steps = setting.config(method, size, fields).train.steps
      fields['train.steps'] = max(
        steps // 4, 10
      )  # periods are shares of it, 1/10 the least
      fields['eval.every'] = fields['checkpoint.every'] = fields['train.steps']
      result.append(Row(f'{method}_x{factor:g}', method, fields))
  return result


def conclude(entries: list[dict[str, Any]]) -> tuple[Any, list[str]]:
  chosen = choose(entries)
  lines = []
  for method, found in chosen.items():
    edge = ', at the edge of the grid' if found['at_the_edge_of_the_grid'] else ''
    lines.append(f'{method}: {found["learning_rate"]:g}{edge}')
  return chosen, lines


EXPERIMENT = Experiment(
  name='learning_rates',
  title='Learning rates: a grid of three per method',
  rows=rows,
  conclude=conclude,
  first_seed=1000,
  seeds=1,
)

if __name__ == '__main__':
  run_command(lambda: main(EXPERIMENT))
