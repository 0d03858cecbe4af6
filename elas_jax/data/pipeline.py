"""Blocks to batches: a Grain iterator for training, a plain one for evaluation.

Both yield dict(tokens=int32[b, L+1], valid=int32[b], bytes=int32[b]), with a document mask
segments=int32[b, L] as well, where b is this process' share of the global batch B and
packing.py says what the fields mean.
"""

import functools
import sys
from collections.abc import Iterator, Sequence

import grain
import numpy as np

from elas_jax.common.errors import UserError
from elas_jax.data.block_set import BlockSet
from elas_jax.data.mixed import MixedSet

Batch = dict[str, np.ndarray]


def train_batches(
  blocks: BlockSet | MixedSet,
  *,
  batch_size: int,
  seed: int,
  process_index: int,
  process_count: int,
  read_threads: int,
  prefetch: int,
) -> grain.DatasetIterator:
  """Endless shuffled batches of this process.

  Every epoch visits each block once, in an order of its own; in a mixture every epoch of
  each of its sources. Step s takes the blocks [s*B, (s+1)*B) of that endless stream,
  whatever the number of processes; a batch may cross from one epoch to the next. The
  iterator's state is the number of the next batch, so `get_state` of one process serves
  every other.

  Args:
    blocks: the train split.
    batch_size: B, over all processes.
    seed: fixes the order.
    process_index, process_count: this process takes every process_count-th block.
    read_threads: threads that read ahead; the order does not depend on them.
    prefetch: batches to read ahead; 0 reads when asked.

  Returns:
    An iterator with get_state and set_state.

  Raises:
    UserError: fewer blocks than one batch, or B that the processes cannot share.
  """
  own_size = _own_batch_size('data', batch_size, process_count)
  if len(blocks) < batch_size:
    raise UserError(
      f'data.batch_size={batch_size}: the train split has only {len(blocks)} '
      f'{blocks.unit}; use a batch of at most {len(blocks)}, or more data'
    )
  # Only block numbers are shuffled and batched one by one; a batch is read at once.
  if isinstance(blocks, MixedSet):
    numbers = _mixed(blocks, seed, batch_size)
  else:
    numbers = _shuffled(len(blocks), seed)
  batches = numbers[process_index::process_count].batch(own_size).map(blocks.read)
  options = grain.ReadOptions(
    num_threads=min(read_threads, prefetch), prefetch_buffer_size=prefetch
  )
  return iter(batches.to_iter_dataset(options))


def _shuffled(count: int, entropy: int | Sequence[int]) -> grain.MapDataset:
  """The numbers below `count`, endless: every epoch has all, in an order of its own."""
  # Grain adds the number of the epoch to the seed, so without this the second epoch
  # of seed 0 would be the first of seed 1.
  mixed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
  return grain.MapDataset.range(count).shuffle(mixed).repeat()


def _mixed(blocks: MixedSet, seed: int, batch_size: int) -> grain.MapDataset:
  """Each source is shuffled for itself, by the seed and its name."""
  parts = blocks.parts.items()
  own = [_shuffled(len(part), [seed, *name.encode()]) for name, part in parts]
  number = functools.partial(blocks.order(batch_size).number, own)
  return grain.MapDataset.range(sys.maxsize).map(number)


def eval_batches(
  blocks: BlockSet | MixedSet,
  *,
  batch_size: int,
  process_index: int,
  process_count: int,
  max_tokens: int,
) -> Iterator[Batch]:
  """The blocks in order, once; the last batch is filled up with rows of valid=0.

  In a mixture the order is that of `MixedSet.spread`, so that any part of it has of each
  source what the whole has. All processes yield the same number of batches.

  Args:
    blocks: the split to evaluate.
    batch_size: B, over all processes.
    process_index, process_count: this process takes rows [index*b, (index+1)*b) of
      each global batch.
    max_tokens: stop after the first global batch that reaches this many targets, 0 for
      the whole split.

  Raises:
    UserError: B that the processes cannot share.
  """
  own_size = _own_batch_size('eval', batch_size, process_count)
  return _eval_batches(
    blocks, batch_size, slice(process_index * own_size, None), own_size, max_tokens
  )


def _eval_batches(
  blocks: BlockSet | MixedSet, batch_size: int, own: slice, own_size: int, max_tokens: int
) -> Iterator[Batch]:
  tokens = 0
  order = blocks.spread if isinstance(blocks, MixedSet) else np.arange(len(blocks))
  for start in range(0, len(blocks), batch_size):
    numbers = order[start : start + batch_size]
    yield _pad(blocks.read(numbers[own][:own_size]), own_size)
    if max_tokens:
      # Each process counts the whole batch, so that all stop at the same one.
      tokens += int(blocks.read(numbers)['valid'].sum())
      if tokens >= max_tokens:
        return


def _pad(batch: Batch, rows: int) -> Batch:
  def pad(values: np.ndarray) -> np.ndarray:
    missing = [(0, rows - len(values))] + [(0, 0)] * (values.ndim - 1)
    return np.pad(values, missing)

  return {name: pad(values) for name, values in batch.items()}


def _own_batch_size(section: str, batch_size: int, process_count: int) -> int:
  if batch_size % process_count:
    raise UserError(
      f'{section}.batch_size={batch_size} does not divide by the {process_count} processes '
      'of this run; use a multiple'
    )
  return batch_size // process_count
