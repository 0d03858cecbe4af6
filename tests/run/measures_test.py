"""Measures by hand, on several devices, and how their values are named and said."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np

from elas_jax.run.measures import by_layer, formats, lacking, why_lacking
from elas_jax.systems.feed_forwards import FEED_FORWARDS
from elas_jax.systems.kinds import room
from elas_jax.systems.measures import MEASURES
from tests.conformance.hosts import language, network


def test_ranks_by_hand():
  """Of a stack of matrices, and of products of factors."""
  random = np.random.default_rng(0)
  a, b = random.normal(size=(2, 9, 4)), random.normal(size=(2, 4, 6))
  b[1] = 0
  two = np.diag([2.0, 1, 0, 0, 0])
  stack = np.stack([0.3 * np.eye(5), np.ones((5, 5)), two, np.zeros((5, 5))])

  @jax.jit
  def measure(stack, a, b):
    matrices = {'stack': (stack,), 'product': (a, b)}
    seen = types.SimpleNamespace(matrices=lambda: matrices)
    return MEASURES['spectrum']().measure(seen)

  found = measure(*map(jnp.float32, (stack, a, b)))
  close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
  close(found['stable_rank/stack'], [5, 1, 5 / 4, 0])
  # Singular values 2 and 1: exp(2/3 log 3/2 + 1/3 log 3).
  close(found['effective_rank/stack'], [5, 1, 3 / 2 ** (2 / 3), 0])
  s = np.linalg.svd(a[0] @ b[0], compute_uv=False)
  p = s[:4] / s.sum()
  close(found['stable_rank/product'], [(s**2).sum() / s[0] ** 2, 0])
  close(found['effective_rank/product'], [np.exp(-(p * np.log(p)).sum()), 0])
  close(found['stable_rank'], np.mean([5, 1, 5 / 4, 0, (s**2).sum() / s[0] ** 2, 0]))


BOTH = MEASURES['activations'](), MEASURES['spectrum']()


def test_what_has_nothing_to_measure_is_a_note():
  config = network()
  config = dataclasses.replace(config, eval=dataclasses.replace(config.eval, measures=BOTH))
  assert lacking(config) == [
    'eval.measures: activations has nothing to measure: not every layer of the model has '
    'a feed-forward with a squared ReLU'
  ]
  reads = types.SimpleNamespace(sown=('activation',))
  assert why_lacking(config, reads) == "no layer of the model gives away 'activation'"
  for kind in FEED_FORWARDS.values():
    assert why_lacking(language(feed_forward=room(kind).CASES[0]), reads) == ''


def test_values_are_named_and_said():
  values = {'a': {'deep': np.array([1.0, 3.0]), 'whole': np.array(0.5)}}
  assert by_layer(values) == {'a/deep': 2, 'a/deep/0': 1, 'a/deep/1': 3, 'a/whole': 0.5}
  line = {'activations/zero_fraction': 0.25, 'activations/zero_fraction/0': 0.2, 'x': 1}
  assert formats(line) == {'activations/zero_fraction': 'zeros {:.1%}'}


def test_without_shown_all_values_are_said(monkeypatch):
  monkeypatch.setitem(MEASURES, 'plain', type('Plain', (), {}))
  line = {'plain/size': 1.0, 'plain/size/0': 1.0, 'plain/size/up': 2.0, 'train/loss': 1}
  assert formats(line) == {
    'plain/size': 'plain size {:.4g}',
    'plain/size/up': 'plain size up {:.4g}',
  }
