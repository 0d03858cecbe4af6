"""Paired statistics, held against scipy.stats and formulas in NumPy."""

import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from scipy import stats

from elas_jax.common.errors import UserError
from elas_jax.common.paired import paired

# Bits per byte of two rows of a table, which says +0.0066 ± 0.0136 of them.
FIRST = {0: 2.1273051384281, 1: 2.20295394316226, 2: 2.133528481188027}
SECOND = {0: 2.1347283064842237, 1: 2.183138789199638, 2: 2.1260288669689102}
sides = st.dictionaries(st.integers(0, 9), st.floats(-1e6, 1e6), max_size=8)


@pytest.mark.parametrize('confidence', [0.5, 0.95, 0.99])
def test_interval_is_that_of_scipy(confidence):
  found = paired(FIRST, SECOND, confidence)
  truth = stats.ttest_rel(list(FIRST.values()), list(SECOND.values()))
  low, high = truth.confidence_interval(confidence)
  np.testing.assert_allclose([found.low, found.high], [low, high], rtol=1e-9)
  # The interval has zero in it just where a test at that level does not reject.
  assert found.shown == (truth.pvalue < 1 - confidence)


def test_mean_and_deviation_of_the_differences():
  found = paired(FIRST, SECOND)
  differences = np.subtract(list(FIRST.values()), list(SECOND.values()))
  assert found.mean == pytest.approx(differences.mean())
  assert found.deviation == pytest.approx(differences.std(ddof=1))
  assert (f'{found.mean:+.4f}', f'{found.deviation:.4f}') == ('+0.0066', '0.0136')
  assert found.verdict('elas_adamw') == 'no difference shown'


def test_what_is_shown_is_said_with_its_interval():
  # Differences -1, -2, -3: mean -2, deviation 1, t = 4.302653 of 2 degrees of freedom.
  half = 4.302652729911275 / math.sqrt(3)
  found = paired({0: 0, 1: 0, 2: 0}, {0: 1, 1: 2, 2: 3}, 0.95)
  assert not found.shown and found.high == pytest.approx(-2 + half)
  found = paired({0: 0, 1: 0, 2: 0}, {0: 1, 1: 2, 2: 3}, 0.9)  # t = 2.919986
  assert found.verdict('A', 2) == 'A is lower by 2.00 (90 % interval 0.31 to 3.69)'
  found = paired({0: 1, 1: 2, 2: 3}, {0: 0, 1: 0, 2: 0}, 0.9)
  assert found.verdict('A', 2) == 'A is higher by 2.00 (90 % interval 0.31 to 3.69)'


def test_a_gap_that_is_visible_is_seen_as_often_as_said():
  """By drawing: tables of eight seeds whose true mean is what a table calls visible."""
  random, shown = np.random.default_rng(0), []
  for _ in range(2000):
    differences = random.normal(0.02, 0.018, 8)
    shown.append(paired(dict(enumerate(differences)), dict.fromkeys(range(8), 0)).shown)
  found = paired(dict(enumerate(random.normal(0, 1, 8))), dict.fromkeys(range(8), 0))
  # Of the deviation 0.018: 0.0207 is visible to four of five tables, and 0.02 is nearly it.
  assert found.visible() / found.deviation * 0.018 == pytest.approx(0.0207, abs=1e-4)
  assert 0.7 < np.mean(shown) < 0.82
  assert found.visible(0.5) == pytest.approx(found.high - found.mean)
  assert found.visible(0.99) > found.visible()
  assert paired({0: 1.0}, {0: 2.0}).visible() is None


def test_few_seeds_say_less():
  one = paired({0: 1.0, 1: 2.0}, {1: 1.5, 2: 0.0})
  assert (one.seeds, one.only_first, one.only_second) == ((1,), (0,), (2,))
  assert (one.mean, one.deviation, one.low, one.shown) == (0.5, None, None, None)
  assert one.verdict('A') == 'one seed: nothing can be said of the spread'
  none = paired({0: 1.0}, {1: 1.0})
  assert none.mean is None
  assert none.verdict('A') == 'not known, no seed has finished both'


def test_what_is_not_finite_is_no_value():
  found = paired({0: math.inf, 1: 1.0, 2: 3.0}, {0: 1.0, 1: 0.0, 2: None, 3: math.nan})
  assert (found.seeds, found.only_first, found.only_second) == ((1,), (2,), (0,))


def test_equal_sides_show_no_difference():
  same = paired(FIRST, FIRST)
  assert (same.low, same.high, same.shown) == (0, 0, False)


@settings(max_examples=50)
@given(sides, sides)
def test_swapped_sides_are_negated(first, second):
  one, other = paired(first, second), paired(second, first)
  assert one.seeds == other.seeds and one.only_first == other.only_second
  assert one.shown == other.shown and one.deviation == other.deviation
  if one.seeds:
    assert other.mean == -one.mean
  if one.low is not None:
    assert (other.low, other.high) == (-one.high, -one.low)


@settings(max_examples=50)
@given(sides, st.floats(-100, 100))
def test_what_all_seeds_share_is_no_difference(side, shift):
  """A change of both sides alike changes nothing; of one side, the mean alone."""
  moved = {seed: x + shift for seed, x in side.items()}
  found = paired(moved, side)
  if found.seeds:
    assert found.mean == pytest.approx(shift, abs=1e-8)
  if found.deviation is not None:
    assert found.deviation == pytest.approx(0, abs=1e-8)


@pytest.mark.parametrize('confidence', [0, 1, 95, math.nan])
def test_confidence_is_a_share(confidence):
  with pytest.raises(UserError, match='confidence=.*: must lie between 0 and 1'):
    paired({}, {}, confidence)
