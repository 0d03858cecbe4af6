"""Linear maps against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np

from elas_jax.ops.linear import chain, dense


def normal(seed, *shape):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_dense_and_its_gradients():
  x, w, g = normal(0, 2, 5, 8), normal(1, 8, 6), normal(2, 2, 5, 6)
  y, vjp = jax.vjp(dense, x, w)
  np.testing.assert_allclose(y, x.astype(np.float64) @ w, rtol=1e-5, atol=1e-5)
  dx, dw = vjp(g)
  np.testing.assert_allclose(dx, g.astype(np.float64) @ w.T, rtol=1e-5, atol=1e-5)
  expected = np.einsum('bli,blo->io', x.astype(np.float64), g)
  np.testing.assert_allclose(dw, expected, rtol=1e-5, atol=1e-5)


def test_dense_output_dtype():
  x, w = normal(0, 3, 512).astype(jnp.bfloat16), normal(1, 512, 4).astype(jnp.bfloat16)
  assert dense(x, w).dtype == jnp.bfloat16
  wide, vjp = jax.vjp(lambda x, w: dense(x, w, jnp.float32), x, w)
  assert wide.dtype == jnp.float32
  # Accumulated in float32: equal to float64 on the same bf16 inputs up to its rounding.
  expected = x.astype(np.float64) @ w.astype(np.float64)
  np.testing.assert_allclose(wide, expected, rtol=1e-4, atol=1e-4)
  dx, dw = vjp(jnp.ones((3, 4)))
  assert dx.dtype == dw.dtype == jnp.bfloat16
  np.testing.assert_allclose(
    dx, w.astype(np.float64).sum(1)[None].repeat(3, 0), rtol=1e-2, atol=0.02
  )
  np.testing.assert_allclose(
    dw, x.astype(np.float64).sum(0)[:, None].repeat(4, 1), rtol=1e-2, atol=0.02
  )


def test_low_rank_is_the_product_of_its_factors():
  x, a, b = normal(0, 2, 5, 8), normal(1, 8, 3), normal(2, 3, 6)
  w = a.astype(np.float64) @ b
  assert np.linalg.matrix_rank(w) == 3
  np.testing.assert_allclose(chain(x, (a, b)), x @ w, rtol=1e-4, atol=1e-5)
