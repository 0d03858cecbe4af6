"""Objectives by hand: what counts and what does not, published weights, what they keep."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elas_jax.common.errors import UserError
from elas_jax.systems.objectives import OBJECTIVES
from tests.conformance.hosts import experts
from tests.systems.sections import with_data

LOCALITY, CHUNK = OBJECTIVES['activation_locality'], OBJECTIVES['chunk_sparsity']


def seen_of(valid=(8, 8), segments=None, share=1.0, **sown):
  """Of two rows of eight tokens what one layer sows, of so many valid tokens.

  `share`: the weight of a token.
  """
  weights = (np.arange(8)[None] < np.array(valid)[:, None]).astype(np.float32) * share
  return types.SimpleNamespace(
    sown={name: {'layer': jnp.asarray(x).reshape(16, -1)} for name, x in sown.items()},
    weights=jnp.asarray(weights),
    counted=lambda rows: jnp.float32(weights.reshape(-1) > 0),
    batch={} if segments is None else {'segments': jnp.asarray(segments)},
  )


@pytest.mark.parametrize(
  'kind', [LOCALITY(), CHUNK(chunk=4)], ids=lambda x: type(x).__name__
)
def test_a_token_counts_once_whatever_its_weight(kind):
  """Those of a pair of answers weigh less than one: what is on is on all the same."""
  random = np.random.default_rng(0)
  scores = np.maximum(random.normal(size=(2, 8, 3)), 0)
  losses = [
    kind.loss(seen_of((8, 5), share=share, router=scores, experts=scores))
    for share in (1.0, 1 / 128)
  ]
  assert losses[0] > 0.01 and losses[0] == losses[1]


def entropy(p, q):
  return -q * np.log(p) - (1 - q) * np.log(1 - p)


def test_locality_by_hand():
  """One expert, of which 0.25 log 3 with alpha 4 is a chance of 3 / 4."""
  on, off = 0.25 * np.log(3), -0.25 * np.log(3)
  scores = np.array([[on, on, off, on, on, on, on, on], [off] * 8], np.float32)
  kind = LOCALITY(alpha=4.0)
  same, other = entropy(0.75, 0.75), entropy(0.75, 0.25)
  # Of seven pairs in each row two in the first are of unlike ones.
  loss = kind.loss(seen_of(router=scores))
  np.testing.assert_allclose(loss, (12 * same + 2 * other) / 14, rtol=1e-6)
  # The second of those is of two documents, and of the second row but a token is valid.
  segments = np.repeat([[0, 1], [0, 0]], (3, 5), axis=1)
  loss = kind.loss(seen_of((8, 1), segments, router=scores))
  np.testing.assert_allclose(loss, (5 * same + other) / 6, rtol=1e-6)
  assert kind.loss(seen_of((1, 0), router=scores)) == 0


def test_the_gradient_of_locality_reaches_both_tokens():
  """By the earlier sigmoid(z) - q, by the later -z q (1 - q), each times alpha."""
  z = np.array([0.5, -1.0])
  scores = np.zeros((2, 8), np.float32)
  scores[0, :2] = z / 2
  loss = lambda a0: LOCALITY(alpha=2.0).loss(seen_of((2, 0), router=a0))
  slopes = np.asarray(jax.grad(loss)(jnp.asarray(scores)))
  p, q = 1 / (1 + np.exp(-z))
  np.testing.assert_allclose(
    slopes[0, :2], [2 * (p - q), -2 * z[0] * q * (1 - q)], rtol=1e-5
  )
  assert not slopes[0, 2:].any() and not slopes[1].any()


def test_chunks_by_hand():
  """Two experts; scores of 3 and 1 are chances of 3 / 4 and 1 / 4 to be on."""
  a1 = np.zeros((2, 8, 2), np.float32)
  a1[0, 0], a1[0, 1], a1[0, 5], a1[1, 6] = (3, 1), (2, 0), (0, 5), (9, 9)
  kind = CHUNK(chunk=4)
  # By chunk: 1 and 1 / 4; 0 and 1; none; 1 / 2 and 1 / 2. Nearly: each logarithm has 1e-5.
  loss = kind.loss(seen_of(experts=a1))
  np.testing.assert_allclose(loss, (1.25 + 1 + 0 + 1) / 8, atol=3e-5)
  # The token of the first row's second chunk counts no more, nor does all of the last.
  loss = kind.loss(seen_of((5, 3), experts=a1))
  np.testing.assert_allclose(loss, 1.25 / 6, atol=3e-5)
  assert kind.loss(seen_of((0, 0), experts=a1)) == 0


def test_more_tokens_with_the_same_experts_are_sparser_chunks():
  random = np.random.default_rng(0)
  other = np.maximum(random.normal(size=(2, 8, 4)), 0).astype(np.float32)
  same = np.broadcast_to(other[:, :1], other.shape)
  loss = lambda a1: float(CHUNK(chunk=8).loss(seen_of(experts=a1)))
  assert loss(same) < loss(other)


def test_published_weights_are_the_defaults():
  assert (LOCALITY().coefficient, LOCALITY().alpha) == (2e-3, 100.0)
  kind = CHUNK()
  assert (kind.coefficient, kind.chunk) == (5e-2, 64)
  assert (kind.hold_steps, kind.every, kind.growth, kind.most) == (1000, 100, 1.025, 4.0)


def walk(kind, losses):
  """The coefficient of each step, from 1, by the rule: of windows as lists."""
  found, window, last, low, high, begun = [], [], None, 1.0, 1.0, 0
  for step, loss in enumerate(losses, 1):
    share = (step - begun) / kind.every if begun else 0.0
    now = low + (high - low) * share
    found.append(kind.coefficient * now)
    window.append(loss)
    if step % kind.every:
      continue
    if step >= kind.hold_steps:
      r = np.mean(window) / np.mean(last)
      times = max(kind.growth, r) if r > 1 else r
      low, high, begun = now, min(now * times, kind.most), step
    last, window = window, []
  return found


@pytest.mark.parametrize('most', [4.0, 1.1])
def test_the_factor_goes_by_the_rule(most):
  kind = CHUNK(chunk=4, hold_steps=12, every=4, most=most)
  random = np.random.default_rng(0)
  levels = np.repeat([1.0, 1, 1, 2, 2.01, 1.5, 1.5, 4, 3, 9, 1], 4)
  losses = levels * random.uniform(0.9, 1.1, 44)
  expected = walk(kind, losses)
  state, computed = kind.state(), []
  for step, loss in enumerate(losses):
    computed.append(float(kind.coefficient_at(jnp.int32(step), 44, state)))
    state = kind.next_state(state, jnp.float32(loss), jnp.int32(step))
  np.testing.assert_allclose(computed, expected, rtol=1e-5)
  assert set(np.round(expected[:12], 9)) == {0.05} and expected[12] != 0.05
  assert max(expected) == pytest.approx(0.05 * most) and np.min(np.diff(expected)) < 0


def test_a_loss_of_nothing_leaves_the_factor():
  kind = CHUNK(chunk=4, hold_steps=4, every=2)
  state = kind.state()
  for step, loss in enumerate([1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0]):
    state = kind.next_state(state, jnp.float32(loss), jnp.int32(step))
    assert kind.coefficient_at(jnp.int32(step), 8, state) == np.float32(0.05)


def test_without_windows_nothing_is_kept():
  fixed = CHUNK(chunk=4, hold_steps=0, every=0)
  assert fixed.state() == {} and fixed.constant and not CHUNK().constant
  assert float(fixed.coefficient_at(jnp.int32(5), 8, fixed.state())) == np.float32(0.05)


@pytest.mark.parametrize(
  'kind, message',
  [
    (LOCALITY(alpha=0.0), 'objective.alpha=0.0: must be above 0'),
    (LOCALITY(coefficient=-1.0), 'objective.coefficient=-1.0: must be at least 0'),
    (CHUNK(chunk=0), 'objective.chunk=0: must be at least 1'),
    (
      CHUNK(chunk=3),
      'objective.chunk=3: must divide data.sequence_length=8; accepted: 1, 2, 4, 8',
    ),
    (CHUNK(chunk=4, every=-1), 'objective.every=-1: must be at least 0'),
    (CHUNK(chunk=4, growth=0.5), 'objective.growth=0.5: must be at least 1'),
    (CHUNK(chunk=4, most=0.0), 'objective.most=0.0: must be at least 1'),
    (
      CHUNK(chunk=4, hold_steps=150),
      'objective.hold_steps=150: must be at least 200, two windows of objective.every=100 '
      'to compare',
    ),
  ],
)
def test_refused(kind, message):
  with pytest.raises(UserError) as error:
    kind.check('objective', with_data(experts(), sequence_length=8))
  assert str(error.value) == message
