"""Several sources mixed: how many rows of each, in which order, and which blocks."""

import json
import random

import numpy as np
import pytest

from elas_jax.data.mixed import MixedSet
from elas_jax.data.mixed_order import MixedOrder, Phase, counts, pattern
from elas_jax.data.pipeline import eval_batches, train_batches
from elas_jax.data.record import difference
from tests.data.pipeline_test import make_blocks, take

PHASES = (Phase(0, (9, 1, 0)), Phase(3, (0, 1, 1)), Phase(8, (1, 3, 2)))
SIZES = (23, 7, 5)
BATCH = 6


def shares_of_all_sorts():
  draw = random.Random(0)
  drawn = [
    tuple(draw.choice([0, 1, draw.randint(1, 90)]) for _ in range(draw.randint(1, 7)))
    for _ in range(30)
  ]
  return [(1,), (1, 1), (0, 3), (1, 1000), *filter(sum, drawn)]


def test_each_source_is_within_one_row_of_its_share_after_every_row():
  for shares in shares_of_all_sorts():
    whole, (sources, before) = sum(shares), pattern(shares)
    had_KxA = np.stack([np.cumsum(sources == i) for i in range(len(shares))])
    rows_A = np.arange(1, whole + 1)
    # In integers: |c A - a n| < A.
    off_KxA = had_KxA * whole - np.outer(shares, rows_A)
    assert np.abs(off_KxA).max() < whole or whole == 1
    assert had_KxA[:, -1].tolist() == list(shares)
    np.testing.assert_array_equal(had_KxA[sources, rows_A - 1], before + 1)
    for rows in (0, 1, whole // 2, whole, 3 * whole + 1):
      periods, rest = divmod(rows, whole)
      counted = np.bincount(sources[:rest], minlength=len(shares))
      assert counts(shares, rows) == (periods * np.array(shares) + counted).tolist()


@pytest.fixture
def blocks(tmp_path):
  """Three sources; the first token of a block is its number in all of them."""
  parts = {}
  for name, size in zip(('web', 'code', 'more'), SIZES):
    (tmp_path / name).mkdir()
    parts[name] = make_blocks(tmp_path / name, [size - 3, 3])
  return MixedSet(parts, PHASES)


def start(blocks, **changes):
  options = {'process_index': 0, 'process_count': 1, 'read_threads': 1, 'prefetch': 1}
  return train_batches(blocks, **{'batch_size': BATCH, 'seed': 0, **options, **changes})


def numbered(blocks, **changes):
  """The iterator, whose blocks' own tokens give way to their numbers in the mixture."""
  read = blocks.read

  def told(numbers):
    rows = read(numbers)
    offsets = np.cumsum([0, *SIZES])[np.searchsorted(np.cumsum(SIZES), numbers, 'right')]
    np.testing.assert_array_equal(rows['tokens'][:, 0], np.asarray(numbers) - offsets)
    return rows | {'tokens': np.asarray(numbers)[:, None]}

  blocks.read = told
  return start(blocks, **changes)


def source_of(numbers):
  return np.searchsorted(np.cumsum(SIZES), numbers, 'right')


def test_counts_of_sources_follow_the_phases_step_by_step(blocks):
  numbers = take(numbered(blocks), 20)
  sources = source_of(numbers)
  starts = [phase.start for phase in PHASES]
  for (_, shares), begin, end in zip(PHASES, starts, [*starts[1:], 20]):
    for step in range(begin + 1, end + 1):  # after so many steps
      rows = (step - begin) * BATCH
      had = np.bincount(sources[begin:step].ravel(), minlength=3)
      assert np.all(np.abs(had * sum(shares) - np.array(shares) * rows) < sum(shares))
      assert not had[np.array(shares) == 0].any()  # also in the last row before a switch


def test_each_source_has_epochs_of_its_own(blocks):
  numbers = take(numbered(blocks), 26).ravel()
  for source, size in enumerate(SIZES):
    own = numbers[source_of(numbers) == source] - sum(SIZES[:source])
    first, second = own[:size], own[size : 2 * size]
    assert sorted(first) == list(range(size))
    assert len(set(second)) == len(second) > size // 2
    assert first[: len(second)].tolist() != second.tolist()


def test_what_a_source_gives_does_not_depend_on_the_others(blocks):
  alone = MixedSet({'code': blocks.parts['code']}, [Phase(0, (1,))])
  expected = take(start(alone), 5).ravel()
  numbers = take(numbered(blocks), 20).ravel()
  own = numbers[source_of(numbers) == 1] - SIZES[0]
  np.testing.assert_array_equal(own[:30], expected)
  assert take(start(alone, seed=1), 5).ravel().tolist() != expected.tolist()


@pytest.mark.parametrize('count', [2, 3])
def test_processes_share_each_batch(blocks, count):
  alone = take(numbered(blocks), 12)
  assert take(start(blocks, read_threads=8, prefetch=5), 12).tolist() == alone.tolist()
  own = [
    take(start(blocks, process_index=i, process_count=count), 12) for i in range(count)
  ]
  np.testing.assert_array_equal(np.stack(own, -1).reshape(12, BATCH), alone)


@pytest.mark.parametrize('steps', [2, 3, 9])
def test_resume_in_any_phase(blocks, steps):
  whole = numbered(blocks)
  take(whole, steps)
  state = json.loads(json.dumps(whole.get_state()))
  resumed = start(blocks)
  resumed.set_state(state)
  np.testing.assert_array_equal(take(resumed, 5), take(whole, 5))


def test_a_later_phase_moves_no_row_before_it():
  short = MixedOrder(SIZES, PHASES[:2], BATCH)
  longer = MixedOrder(SIZES, PHASES, BATCH)
  before = range(8 * BATCH)
  assert [short.place(row) for row in before] == [longer.place(row) for row in before]
  later = range(8 * BATCH, 10 * BATCH)
  assert [short.place(row) for row in later] != [longer.place(row) for row in later]


def test_any_part_of_the_evaluation_is_like_the_whole(blocks):
  options = {'process_index': 0, 'process_count': 1, 'max_tokens': 0}
  read, asked = blocks.read, []
  blocks.read = lambda numbers: asked.extend(numbers) or read(numbers)
  batches = list(eval_batches(blocks, batch_size=7, **options))
  assert sorted(asked) == list(range(sum(SIZES)))
  assert len(batches) == 5
  for count in range(1, sum(SIZES) + 1):
    had = np.bincount(source_of(asked[:count]), minlength=3)
    assert np.abs(had - count * np.array(SIZES) / sum(SIZES)).max() < 1.5
  # A process without a row of the last batch.
  alone = list(eval_batches(blocks, batch_size=32, **options))
  last = list(
    eval_batches(
      blocks, batch_size=32, **options | {'process_count': 8, 'process_index': 7}
    )
  )[-1]
  assert {name: x.shape for name, x in last.items()} == {
    name: (4, *x.shape[1:]) for name, x in alone[-1].items()
  }


def test_totals_and_numbers_outside(blocks):
  assert (len(blocks), blocks.blocks, blocks.sequence_length) == (35, 35, 4)
  sums = {name: [getattr(x, name) for x in blocks.parts.values()] for name in ('bytes',)}
  assert blocks.bytes == sum(sums['bytes']) == 9 * 35
  assert blocks.max_token_id == 22
  for numbers in ([35], [-1]):
    with pytest.raises(IndexError, match=r'in \[0, 35\)'):
      blocks.read(numbers)
  other = MixedSet({'web': blocks.parts['code'], 'code': blocks.parts['web']}, PHASES)
  renamed = MixedSet(dict(zip('abc', blocks.parts.values())), PHASES)
  assert len({blocks.fingerprint, other.fingerprint, renamed.fingerprint}) == 3


def test_differences_are_said_by_source():
  def record(**prints):
    part = lambda x: {'source': 'tfds', 'splits': {'train': {'fingerprint': x}}}
    whole = {'train': {'fingerprint': json.dumps(prints)}}
    parts = {name: part(x) for name, x in prints.items()}
    return {'source': 'mixture', 'splits': whole, 'parts': parts}

  old = record(web='1', code='2')
  assert difference(old, record(web='1', code='2'), ['train']) == ''
  found = difference(old, record(web='1', code='3'), ['train'])
  assert found.startswith('code: ') and 'web' not in found
  found = difference(old, record(code='2', web='1'), ['train'])
  assert found == 'sources code, web instead of web, code'
