"""Picks the learning rates of experiments.decoder_networks at the proxy scale, before it.

  python -m experiments.decoder_rates --scale=smoke
  python -m experiments.decoder_rates --scale=proxy

Three rates for every decoder, for half of the steps and with a seed that the table does not
use, by validation bits per byte; what is best at an edge of the grid is said to be. The
table takes the Kolmogorov-Arnold linear layer that is best here.
Hardware: two CPU cores, 21 runs of 250 steps, 3 of them of experiments.learning_rates,
one to three minutes each.
Expected: experiments/results/decoder_rates/proxy.md.
"""

import dataclasses
from typing import Any

from elas_jax.cli import run_command
from experiments.decoder_networks import DECODERS, FAMILY, KAN, best_kan, decoder, scales
from experiments.harness import Experiment, main
from experiments.rates import RATE, choose
from experiments.runs import PROXY, SMOKE, Row, Setting

GRID = (1e-3, 2e-3, 4e-3)
SEED = 1000


def rows(setting: Setting, size: str) -> list[Row]:
  steps = {'smoke': SMOKE, 'proxy': PROXY}[setting.scale]['train.steps']
  if setting.scale == 'proxy':
    steps //= 2
  length = dict.fromkeys(('train.steps', 'eval.every', 'checkpoint.every'), steps)
  result = []
  for name in DECODERS:
    base = decoder(setting, name)
    result += [
      dataclasses.replace(
        base, label=f'{name}_{rate:g}', fields=base.fields | {RATE: rate} | length
      )
      for rate in GRID
    ]
  return result[: 2 * len(GRID)] if setting.scale == 'smoke' else result


def conclude(entries: list[dict[str, Any]]) -> tuple[Any, list[str]]:
  chosen = choose(entries)
  edge = lambda x: ', at the edge of the grid' if x['at_the_edge_of_the_grid'] else ''
  lines = [f'{n}: {x["learning_rate"]:g}{edge(x)}' for n, x in chosen.items()]
  if best := best_kan(entries):
    lines.append(f'Best Kolmogorov-Arnold linear layer: {best.removeprefix(KAN)}.')
  return chosen, lines


EXPERIMENT = Experiment(
  name='decoder_rates',
  title='Learning rates of decoders of quadratic and Kolmogorov-Arnold layers',
  rows=rows,
  family=FAMILY,
  scales=scales(),
  conclude=conclude,
  first_seed=SEED,
  seeds=1,
)

if __name__ == '__main__':
  run_command(lambda: main(EXPERIMENT))
