import json

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from elas_jax.common.errors import UserError
from elas_jax.data.block_set import WRITER_OPTIONS, BlockSet, Shard
from elas_jax.data.packing import row_dtype
from elas_jax.data.pipeline import eval_batches, train_batches

LENGTH = 4


def make_blocks(folder, sizes):
  """A BlockSet in which the first token of each block is the block's number."""
  dtype = row_dtype(LENGTH, 1000)
  shards, number = [], 0
  for i, size in enumerate(sizes):
    writer = ArrayRecordWriter(str(folder / f'{i}'), WRITER_OPTIONS)
    for _ in range(size):
      row = np.zeros((), dtype)
      row['valid'], row['bytes'], row['tokens'] = 1 + number % LENGTH, 9, number
      writer.write(row.tobytes())
      number += 1
    writer.close()
    shards.append(Shard(f'{i}', size, size, 9 * size, number - 1, size, 9 * size, f'{i}'))
  return BlockSet(folder, shards, dtype)


@pytest.fixture
def blocks(tmp_path):
  return make_blocks(tmp_path, [11, 0, 9, 3])  # 23 blocks


def start(blocks, **changes):
  options = {
    'batch_size': 4,
    'seed': 0,
    'process_index': 0,
    'process_count': 1,
    'read_threads': 2,
    'prefetch': 3,
  }
  return train_batches(blocks, **(options | changes))


def take(iterator, count):
  """The block numbers of `count` batches [count, b]."""
  return np.stack([next(iterator)['tokens'][:, 0] for _ in range(count)])


def test_shapes_and_contents(blocks):
  batch = next(start(blocks))
  assert {name: value.shape for name, value in batch.items()} == {
    'tokens': (4, LENGTH + 1),
    'valid': (4,),
    'bytes': (4,),
  }
  assert all(value.dtype == np.int32 for value in batch.values())
  numbers = batch['tokens'][:, 0]
  np.testing.assert_array_equal(batch['valid'], 1 + numbers % LENGTH)


def test_every_epoch_visits_each_block_once_in_its_own_order(blocks):
  numbers = take(start(blocks), 23).ravel()  # 23 batches of 4: four epochs
  epochs = numbers.reshape(4, 23)
  for epoch in epochs:
    assert sorted(epoch) == list(range(23))
  assert len({tuple(epoch) for epoch in epochs}) == 4
  assert tuple(epochs[0]) != tuple(range(23))


@pytest.mark.parametrize(('threads', 'prefetch'), [(0, 0), (1, 1), (8, 2), (8, 20)])
def test_order_depends_on_the_seed_alone(blocks, threads, prefetch):
  expected = take(start(blocks), 15)
  again = take(start(blocks, read_threads=threads, prefetch=prefetch), 15)
  np.testing.assert_array_equal(again, expected)
  assert (take(start(blocks, seed=1), 15) != expected).any()


def test_epochs_of_neighbouring_seeds_differ(blocks):
  second_epoch = take(start(blocks, seed=0), 12).ravel()[23:46]
  first_epoch = take(start(blocks, seed=1), 6).ravel()[:23]
  assert (second_epoch != first_epoch).any()


@pytest.mark.parametrize('count', [2, 4])
def test_processes_share_each_global_batch(blocks, count):
  alone = take(start(blocks), 20)
  own = [
    take(start(blocks, process_index=i, process_count=count), 20) for i in range(count)
  ]
  shared = np.concatenate(own, axis=1)
  assert shared.shape == (20, 4)
  np.testing.assert_array_equal(np.sort(shared), np.sort(alone))


@pytest.mark.parametrize('steps', [0, 1, 5, 6, 14])  # an epoch ends within batch 5
@pytest.mark.parametrize('process', [0, 1])
def test_resume_gives_the_same_next_batches(blocks, steps, process):
  options = {'process_index': process, 'process_count': 2}
  uninterrupted = start(blocks, **options)
  take(uninterrupted, steps) if steps else None
  state = json.loads(json.dumps(uninterrupted.get_state()))  # as in a checkpoint
  expected = take(uninterrupted, 10)
  resumed = start(blocks, **options)
  resumed.set_state(state)
  np.testing.assert_array_equal(take(resumed, 10), expected)
  # Also in an iterator that has read ahead already.
  uninterrupted.set_state(state)
  np.testing.assert_array_equal(take(uninterrupted, 10), expected)


def test_too_few_blocks_for_a_batch(blocks):
  assert take(start(blocks, batch_size=23), 1).shape == (1, 23)
  with pytest.raises(UserError) as error:
    start(blocks, batch_size=24)
  message = str(error.value)
  assert message.startswith('data.batch_size=24: ')
  assert 'only 23 blocks of data.sequence_length=4' in message
  assert '\n' not in message


def test_batch_that_processes_cannot_share(blocks):
  for call, section in ((start, 'data'), (evaluate, 'eval')):
    with pytest.raises(UserError, match=rf'^{section}\.batch_size=5 .* 2 processes'):
      call(blocks, batch_size=5, process_count=2)


def evaluate(blocks, **changes):
  options = {'batch_size': 4, 'process_index': 0, 'process_count': 1, 'max_tokens': 0}
  return list(eval_batches(blocks, **(options | changes)))


def test_evaluation_is_in_order_and_padded(blocks):
  batches = evaluate(blocks)
  assert len(batches) == 6
  assert all(batch['tokens'].shape == (4, LENGTH + 1) for batch in batches)
  numbers = np.concatenate([batch['tokens'][:, 0] for batch in batches])
  valid = np.concatenate([batch['valid'] for batch in batches])
  np.testing.assert_array_equal(numbers[:23], np.arange(23))
  np.testing.assert_array_equal(valid[:23], 1 + np.arange(23) % LENGTH)
  assert valid[23] == 0
  assert batches[-1]['bytes'].tolist() == [9, 9, 9, 0]


@pytest.mark.parametrize('max_tokens', [0, 1, 12])
def test_processes_evaluate_the_same_number_of_batches(tmp_path, max_tokens):
  blocks = make_blocks(tmp_path, [9])  # the last global batch has one row
  alone = evaluate(blocks, max_tokens=max_tokens)
  own = [
    evaluate(blocks, process_index=i, process_count=4, max_tokens=max_tokens)
    for i in range(4)
  ]
  assert {len(batches) for batches in own} == {len(alone)}
  for step, batch in enumerate(alone):
    for name, value in batch.items():
      shared = np.concatenate([batches[step][name] for batches in own])
      np.testing.assert_array_equal(shared, value)


@pytest.mark.parametrize(
  ('max_tokens', 'batches'), [(1, 1), (10, 1), (11, 2), (20, 2), (21, 3), (10**6, 6)]
)
def test_evaluation_stops_at_enough_tokens(blocks, max_tokens, batches):
  # Four blocks hold 1 + 2 + 3 + 4 targets.
  assert len(evaluate(blocks, max_tokens=max_tokens)) == batches
