"""Picks the learning rate of every method at the proxy scale, before the other tables.

  python -m experiments.learning_rates --scale=proxy

Half, once and twice a base rate per method (experiments/rates.py), for half of the steps
and with a seed that no table uses, by validation bits per byte. While the best rate of a
method is at the edge of its grid, the grid grows by a factor of 2 there, up to twice in
each direction; what is at the edge after that is said to be. The other scripts read
experiments/results/learning_rates/proxy.json. cola_m computes what cola does and takes its
rate. The paper's scale has published rates instead, those of configs/c4.py.
Hardware: two CPU cores, 46 runs of 250 steps, two minutes each on a core of its own.
Expected: experiments/results/learning_rates/proxy.md.
"""

import functools
import math
from typing import Any

from elas_jax.common.errors import UserError
from elas_jax.config.cli import run_command
from experiments.harness import Experiment, main
from experiments.rates import BASE, conclude, grown
from experiments.result_files import recorded, runs_of_file
from experiments.revisions import with_before
from experiments.runs import Row, Run, Setting, outcome

SEED = 1000


def rows(setting: Setting, size: str) -> list[Row]:
  if setting.scale == 'paper':
    raise UserError(
      '--scale=paper: takes the published rates of configs/c4.py; must be proxy or smoke'
    )
  known, result = recorded(setting.rates), []
  of_file = runs_of_file(setting.rates)

  def score(row, factor):
    old = of_file.get((row(factor).label, size), {}).get(SEED)
    return bits_per_byte(setting.run(row(factor), size, SEED), known, old)

  for method, base in BASE.items():
    steps = setting.config(method, size, {'optimizer.learning_rate': base}).train.steps
    steps = max(steps // 2, 10)  # periods are shares of it, 1/10 the least
    row = functools.partial(_row, method, base, steps)
    result += map(row, grown(functools.partial(score, row)))
  return result


def _row(method: str, base: float, steps: int, factor: float) -> Row:
  fields = {'optimizer.learning_rate': base * factor}
  fields |= dict.fromkeys(('train.steps', 'eval.every', 'checkpoint.every'), steps)
  return Row(f'{method}_x{factor:g}', method, fields)


def bits_per_byte(
  run: Run, known: dict[str, dict[str, Any]], old: dict[str, Any] | None = None
) -> float | None:
  """What a run reached, infinite if it diverged; None if it is not done.

  Of a run that is to be made again, what it reached before (in `old`): its grid stays.
  """
  found = with_before(outcome(run, known), old, run.config)
  found = found.get('before', found)
  if found['status'] == 'finished':
    return found['values']['eval/bits_per_byte']
  return math.inf if found['status'] == 'diverged' else None


EXPERIMENT = Experiment(
  name='learning_rates',
  title='Learning rates: a grid per method',
  rows=rows,
  conclude=conclude,
  first_seed=SEED,
  seeds=1,
)

if __name__ == '__main__':
  run_command(lambda: main(EXPERIMENT))
