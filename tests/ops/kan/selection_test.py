"""The phases of a selection among families."""

import jax
import jax.numpy as jnp
import numpy as np

from elas_jax.ops.kan import selection
from elas_jax.ops.kan.selection import select

selection_weights = jax.jit(selection.selection_weights, static_argnums=(1, 2))
THETA = jnp.array([0.3, 1.2, -0.5, 0.9])


def test_weights_of_each_phase():
  e = np.exp(np.asarray(THETA))
  np.testing.assert_allclose(selection_weights(THETA, 'full', 2), e / e.sum(), rtol=1e-6)
  expected = np.array([0, e[1], 0, e[3]]) / (e[1] + e[3])
  np.testing.assert_allclose(selection_weights(THETA, 'selective', 2), expected, rtol=1e-6)
  np.testing.assert_array_equal(selection_weights(THETA, 'pruned', 2), [0, 1, 0, 0])


def test_ties_keep_the_earlier():
  flat = jnp.zeros(4)
  np.testing.assert_array_equal(selection_weights(flat, 'selective', 2), [0.5, 0.5, 0, 0])
  np.testing.assert_array_equal(selection_weights(flat, 'pruned', 2), [1, 0, 0, 0])


def test_a_node_chooses_for_itself():
  theta_MxO = jnp.stack([THETA, THETA[::-1], 2 * THETA], 1)
  for phase in ('full', 'selective', 'pruned'):
    weights = selection_weights(theta_MxO, phase, 2)
    for o in range(3):
      alone = selection_weights(theta_MxO[:, o], phase, 2)
      np.testing.assert_allclose(weights[:, o], alone, rtol=1e-6)


def test_gradients_reach_only_what_is_kept():
  value = lambda theta, phase: selection_weights(theta, phase, 2) @ jnp.arange(4.0)
  slope = {
    p: np.asarray(jax.grad(value)(THETA, p)) for p in ('full', 'selective', 'pruned')
  }
  assert (slope['full'] != 0).all()
  np.testing.assert_array_equal(slope['selective'] != 0, [False, True, False, True])
  np.testing.assert_array_equal(slope['pruned'], 0)


def test_select_equals_numpy():
  random = np.random.default_rng(0)
  ys = [random.normal(size=(2, 5, 3)).astype(np.float32) for _ in range(4)]
  for weights in (random.normal(size=4), random.normal(size=(4, 3))):
    y = select([jnp.asarray(a) for a in ys], jnp.asarray(weights, jnp.float32))
    expected = sum(w * a for w, a in zip(weights, ys))
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
