"""Picks the learning rates of experiments.decoder_networks at the proxy scale, before it.

  python -m experiments.decoder_rates --scale=smoke
  python -m experiments.decoder_rates --scale=proxy

By the grid of experiments.learning_rates: half, once and twice 2e-3, and further by factors
of 2 while the best is at the edge; for half of the steps, with a seed that the table does
not use. The table takes the Kolmogorov-Arnold linear layer that is best here.
Hardware: two CPU cores, about 25 runs of 250 steps, one to four minutes each on a core of
its own.
Expected: experiments/results/decoder_rates/proxy.md.
"""

import dataclasses
from typing import Any

from elas_jax.config.cli import run_command
from experiments import rates
from experiments.decoder_networks import DECODERS, FAMILY, KAN, best_kan, decoder, scales
from experiments.harness import Experiment, main
from experiments.learning_rates import SEED, bits_per_byte
from experiments.result_files import recorded_by_tables
from experiments.runs import PROXY, SMOKE, Row, Setting

BASE = 2e-3


def rows(setting: Setting, size: str) -> list[Row]:
  smoke = setting.scale == 'smoke'
  steps = SMOKE['train.steps'] if smoke else PROXY['train.steps'] // 2
  length = dict.fromkeys(('train.steps', 'eval.every', 'checkpoint.every'), steps)
  known, result = recorded_by_tables(setting.rates), []

  def row(name: str, factor: float) -> Row:
    base, rate = decoder(setting, name), BASE * factor
    fields = base.fields | {rates.RATE: rate} | length
    return dataclasses.replace(base, label=f'{name}_{rate:g}', fields=fields)

  for name in list(DECODERS)[: 2 if smoke else None]:
    score = lambda factor, name=name: bits_per_byte(
      setting.run(row(name, factor), size, SEED), known
    )
    result += [row(name, factor) for factor in rates.grown(score)]
  return result


def conclude(entries: list[dict[str, Any]]) -> tuple[Any, list[str]]:
  chosen, lines = rates.conclude(entries)
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
