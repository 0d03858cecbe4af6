"""What of ELAS is pruning, activation, optimiser or rank: the controls that it lacks.

  python -m experiments.run ablation_controls --scale=proxy --workers=2

Rows: ELAS; the same without pruning (loro_relu2); that at a rank at which its feed-forward
trains with as many FLOPs as ELAS's (equal_flops); the same pair by AdamW instead of LORO
(elas_adamw, low_rank_relu2); and AdamW from the factors of a dense start (spectral).
Reproduces: no table; asked for in the public reviews of the paper.
Hardware and flags of the paper's scale: as table1_perplexity.
"""

import dataclasses

import jax.numpy as jnp

from elas_jax.config.config import Config, ModelConfig
from elas_jax.run.ended import size_of
from elas_jax.systems.feed_forwards.relu2_two_four import TwoFourSquaredReLU
from elas_jax.tables.entries import Entry, gap_lines
from elas_jax.tables.plan import At
from elas_jax.tables.table import Row, Table
from experiments import published
from experiments.language import ACTIVATIONS, LANGUAGE, METRICS, scales

PAIRS = (
  ('elas', 'loro_relu2'),
  ('elas', 'equal_flops'),
  ('elas_adamw', 'low_rank_relu2'),
  ('spectral', 'low_rank_relu2'),
)


def training_bytes(config: Config) -> tuple[int, int]:
  """(Parameters and optimiser state, F-wide tensors that the backward pass keeps).

  Without pruning the latter are h and y = relu(h)^2 of every layer. With it they are
  packed z alone: half the values and a bit of metadata for each entry, 9/16 of one bf16
  tensor.
  All other activations are left out: they are R or D wide and about the same in both.
  """
  model, data = config.model, config.data
  micro_batch = data.batch_size // config.train.accumulation
  entries = model.layers * micro_batch * data.sequence_length * model.feed_forward_width
  itemsize = jnp.dtype(model.compute_dtype).itemsize
  if isinstance(model.feed_forward, TwoFourSquaredReLU):
    activations = entries * itemsize // 2 + entries // 8
  else:
    activations = 2 * entries * itemsize
  kept = size_of(config)
  return kept['parameter_bytes'] + kept['optimizer_bytes'], activations


def equal_flops_rank(model: ModelConfig) -> int:
  """The rank without pruning whose feed-forward trains with as many FLOPs as ELAS's.

  A low-rank feed-forward is twelve products in forward and backward pass: six with F, of
  2 T R F FLOPs each, and six with D, of 2 T R D. Two of those with F contract over F and
  have a 2:4 operand, the second linear map of the forward pass and dh B1 of the exact
  backward pass: they count half. At F = 4 D that leaves 26 of 30 parts.
  """
  D, F, R = model.width, model.feed_forward_width, model.linear.rank
  return round(R * (5 * F + 6 * D) / (6 * F + 6 * D))


def equal_flops(at: At) -> Row:
  rank = equal_flops_rank(at.config('elas').model)
  return Row('equal_flops', 'loro_relu2', {'model.linear.rank': rank})


def memory_note(at: At) -> list[str]:
  """Why no row has ELAS's memory, in the numbers of a size."""
  elas, control = (at.config(method) for method in ('elas', 'loro_relu2'))
  linear = dataclasses.replace(control.model.linear, rank=1)
  model = dataclasses.replace(control.model, linear=linear)
  narrow = dataclasses.replace(control, model=model)
  megabytes = lambda count: f'{count / 1e6:,.1f} MB'
  kept = lambda config: megabytes(sum(training_bytes(config)))
  if sum(training_bytes(narrow)) <= sum(training_bytes(elas)):
    return []
  (state, packed), (_, dense) = training_bytes(elas), training_bytes(control)
  return [
    f'Equal memory ({at.size}): no rank of loro_relu2 has it, since what is F wide does '
    f'not shrink with the rank. Parameters and optimiser state are {megabytes(state)} at '
    f'R = {elas.model.linear.rank} for both; for a micro-batch the backward pass keeps '
    f'{megabytes(dense)} of h and y, against {megabytes(packed)} of packed z. Together '
    f'loro_relu2 takes {kept(control)}, and {kept(narrow)} at rank 1; ELAS {kept(elas)}.'
  ]


def rows(at: At) -> list[Row]:
  return [
    Row('elas', 'elas', published=published.PERPLEXITY['elas']),
    Row('loro_relu2', 'loro_relu2'),
    equal_flops(at),
    Row('low_rank_relu2', 'low_rank_relu2'),
    Row('elas_adamw', 'elas_adamw'),
    Row('spectral', 'low_rank_relu2', {'model.linear.factor_init': 'spectral'}),
  ]


def conclude(entries: list[Entry]) -> list[str]:
  return gap_lines(entries, PAIRS, METRICS)


TABLE = Table(
  title='ELAS and its controls',
  rows=rows,
  family=LANGUAGE,
  scales=scales(),
  metrics=METRICS + ACTIVATIONS,
  conclude=conclude,
  notes=(
    'equal_flops: loro_relu2 at the rank R (5 F + 6 D) / (6 F + 6 D), rounded: the FLOPs '
    "of ELAS's feed-forward in training if a product with a 2:4 operand counts half: two "
    'of its six with F, of twelve in all. That is the ideal, not measured. The rank is '
    'that of all linear maps, so attention is a little smaller too.',
    'spectral: low_rank_relu2 with model.linear.factor_init=spectral.',
  ),
  notes_at=memory_note,
)
