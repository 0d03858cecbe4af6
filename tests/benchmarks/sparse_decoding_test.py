"""The benchmark of decoding that passes over zeros: what it plants, and what it says."""

import itertools

import numpy as np
import pytest

from benchmarks import sparse_decoding as bench
from elas_jax.systems.feed_forwards import FEED_FORWARDS

pytestmark = pytest.mark.conformance


def test_programs_decode_the_same_and_a_difference_is_an_error(monkeypatch):
  found = list(itertools.islice(bench.cases(smoke=True, repetitions=1), 3))
  assert [one['zeros'] for one in found] == [0.5, 0.8, 0.9]
  for one in found:
    assert one['parameters'] > 500_000 and one['tokens'] == bench.TOKENS
    assert all(seconds['median'] > 0 for seconds in one['seconds'].values())
  (line,) = bench.table(found[2:])[-1:]
  assert line.startswith('| tiny | 257 | 1 | mlp | 90% | ')

  def other(model, variables):
    of = programs(model, variables)
    (program, inputs), *_ = of.values()
    return of | {'skipping': (lambda *given: program(*given) + 1, inputs)}

  programs = bench.programs
  monkeypatch.setattr(bench, 'programs', other)
  with pytest.raises(RuntimeError, match='do not decode the same tokens'):
    next(bench.cases(smoke=True, repetitions=1))


def test_tokens_a_second_are_those_of_the_median_and_its_range():
  seconds = {'median': 0.5, 'min': 0.25, 'max': 1.0}
  slow = {'median': 1.0, 'min': 1.0, 'max': 1.0}
  case = {'tokens': 16, 'seconds': {'stacked': slow, 'by layer': seconds}}
  assert bench.rate(case, 'by layer') == '32 [16, 64]'
  case['seconds']['skipping'] = {'median': 0.4, 'min': 0.1, 'max': 1.0}
  np.testing.assert_allclose(bench.gain(case), 1.25)  # over the faster of the dense ones


def test_zeros_are_planted():
  model = bench.model_of('tiny', 257, FEED_FORWARDS['mlp']())
  variables = bench.planted(model, 0.95)
  rows = np.random.default_rng(5).integers(0, 257, (1, 64))
  assert abs(bench.share_of_zeros(model, variables, rows) - 0.95) < 0.02
