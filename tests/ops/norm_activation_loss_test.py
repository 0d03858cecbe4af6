"""RMSNorm, activations and the loss against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np

from elas_jax.ops.activation import squared_relu, swiglu
from elas_jax.ops.loss import cross_entropy_sums
from elas_jax.ops.norm import rms_norm


def test_rms_norm():
  x = np.random.default_rng(0).normal(size=(2, 3, 16)).astype(np.float32)
  scale = np.linspace(0.5, 2.0, 16, dtype=np.float32)
  wide = x.astype(np.float64)
  expected = wide / np.sqrt((wide**2).mean(-1, keepdims=True) + 1e-6) * scale
  np.testing.assert_allclose(rms_norm(x, scale, 1e-6), expected, rtol=1e-5)


def test_rms_norm_works_in_float32_on_bf16():
  x = jnp.full((1, 4096), 300.0, jnp.bfloat16)  # the sum of squares overflows no float32
  y = rms_norm(x, jnp.ones(4096, jnp.bfloat16), 1e-6)
  assert y.dtype == jnp.bfloat16
  np.testing.assert_array_equal(y, 1.0)


def test_squared_relu_and_its_gradient():
  h = np.array([-2.0, -0.5, 0.0, 0.5, 3.0], np.float32)
  np.testing.assert_array_equal(squared_relu(h), [0, 0, 0, 0.25, 9])
  grad = jax.grad(lambda h: squared_relu(h).sum())(h)
  np.testing.assert_array_equal(grad, [0, 0, 0, 1, 6])


def test_swiglu():
  gate, up = np.array([-1.0, 0.0, 2.0]), np.array([3.0, 4.0, 5.0])
  expected = gate / (1 + np.exp(-gate)) * up
  np.testing.assert_allclose(swiglu(jnp.array(gate), jnp.array(up)), expected, rtol=1e-6)


def test_cross_entropy_sums_weigh_tokens():
  random = np.random.default_rng(0)
  logits = 5 * random.normal(size=(2, 4, 7)).astype(np.float32)
  targets = random.integers(0, 7, (2, 4))
  weights = np.array([[1, 1, 1, 1], [1, 0, 0, 0]], np.float32)
  log_z = np.log(np.exp(logits.astype(np.float64)).sum(-1))
  picked = np.take_along_axis(logits, targets[..., None], -1)[..., 0]
  nll, squared = cross_entropy_sums(logits, targets, weights)
  np.testing.assert_allclose(nll, ((log_z - picked) * weights).sum(), rtol=1e-6)
  np.testing.assert_allclose(squared, (log_z**2 * weights).sum(), rtol=1e-6)


def test_cross_entropy_is_stable():
  logits = jnp.array([[[1e4, 0.0, -1e4]]])
  nll, _ = cross_entropy_sums(logits, jnp.array([[0]]), jnp.ones((1, 1)))
  assert float(nll) == 0.0
