"""What of ELAS is pruning, activation, optimiser or rank: the controls that it lacks.

  python -m experiments.ablation_controls --scale=smoke
  python -m experiments.ablation_controls --scale=proxy
  python -m experiments.ablation_controls --scale=paper --config.data.path=... (see table 1)

Rows: ELAS; the same without pruning (loro_relu2); that at a rank so small that its
footprint is no larger than ELAS's (equal_footprint); the same pair by AdamW instead of
LORO (elas_adamw, low_rank_relu2); and AdamW from the factors of a dense start (spectral).
Reproduces: no table; asked for in the public reviews of the paper.
Hardware: proxy two CPU cores, 15 runs of 600 steps, not yet timed, 12 of them table 1's;
paper GPUs, not yet run on any.
Expected: none yet.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp

from elas_jax.cli import run_command
from elas_jax.config import Config
from experiments import published, report
from experiments.harness import Experiment, main
from experiments.runs import Row, Setting, footprint

PAIRS = (
  ('elas', 'loro_relu2'),
  ('elas', 'equal_footprint'),
  ('elas_adamw', 'low_rank_relu2'),
  ('spectral', 'low_rank_relu2'),
)


def training_bytes(config: Config) -> int:
  """Parameters, optimiser state and the F-wide tensors that the backward pass keeps.

  Without pruning those are h and y = relu(h)^2 of every layer. With it they are packed z
  alone: half the values and a bit of metadata for each entry, 9/16 of one bf16 tensor.
  All other activations are left out: they are R or D wide and about the same in both.
  """
  model, data = config.model, config.data
  micro_batch = data.batch_size // config.train.accumulation
  entries = model.layers * micro_batch * data.sequence_length * model.feed_forward_width
  itemsize = jnp.dtype(model.compute_dtype).itemsize
  if model.feed_forward == 'relu2_two_four':
    activations = entries * itemsize // 2 + entries // 8
  else:
    activations = 2 * entries * itemsize
  kept = footprint(dataclasses.replace(config, seed=0))
  return kept['parameter_bytes'] + kept['optimizer_bytes'] + activations


def with_rank(config: Config, rank: int) -> Config:
  model = dataclasses.replace(config.model, rank=rank)
  return dataclasses.replace(config, model=model)


def equal_footprint_rank(elas: Config, control: Config) -> int:
  """The largest rank at which `control` takes no more bytes than `elas`; 0 if none."""
  limit, low, high = training_bytes(elas), 0, elas.model.rank
  while low < high:  # bytes grow with the rank
    middle = (low + high + 1) // 2
    if training_bytes(with_rank(control, middle)) <= limit:
      low = middle
    else:
      high = middle - 1
  return low


def equal_footprint(setting: Setting, size: str) -> Row:
  elas, control = (setting.config(method, size, {}) for method in ('elas', 'loro_relu2'))
  rank = equal_footprint_rank(elas, control)
  if not rank:
    smallest = training_bytes(with_rank(control, 1)) / 1e6
    return Row(
      'equal_footprint',
      'loro_relu2',
      problem=f'no rank fits: {smallest:,.1f} MB at rank 1, ELAS '
      f'{training_bytes(elas) / 1e6:,.1f} MB',
    )
  fields = {'model.rank': rank, 'optimizer.lazy_scale': rank / control.model.width}
  return Row('equal_footprint', 'loro_relu2', fields)


def rows(setting: Setting, size: str) -> list[Row]:
  return [
    Row('elas', 'elas', published=published.PERPLEXITY['elas']),
    Row('loro_relu2', 'loro_relu2'),
    equal_footprint(setting, size),
    Row('low_rank_relu2', 'low_rank_relu2'),
    Row('elas_adamw', 'elas_adamw'),
    Row('spectral', 'low_rank_relu2', {'model.factor_init': 'spectral'}),
  ]


def conclude(entries: list[dict[str, Any]]) -> tuple[Any, list[str]]:
  gaps, lines = report.gaps(entries, PAIRS)
  return {'gaps': gaps}, lines


EXPERIMENT = Experiment(
  name='ablation_controls',
  title='ELAS and its controls',
  rows=rows,
  metrics=report.METRICS + report.ACTIVATIONS,
  conclude=conclude,
  notes=(
    'equal_footprint: loro_relu2 at the largest rank whose parameters, optimiser state and '
    "kept F-wide activations (h and y of every layer) take no more bytes than ELAS's "
    '(packed z), for one micro-batch of the run.',
    'spectral: low_rank_relu2 with model.factor_init=spectral.',
  ),
)

if __name__ == '__main__':
  run_command(lambda: main(EXPERIMENT))
