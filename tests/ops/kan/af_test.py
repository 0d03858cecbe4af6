"""AF-KAN's steps against NumPy's formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elas_jax.ops.kan.af import (
  COMBINATIONS,
  FUNCTIONS,
  global_attention,
  min_max,
  multistep,
  pair_functions,
  spatial_attention,
)

I, S = 5, 6


def normal(seed, *shape):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def softmax(x, axis):
  e = np.exp(x - x.max(axis, keepdims=True))
  return e / e.sum(axis, keepdims=True)


def silu(x):
  return x / (1 + np.exp(-x))


X, LOW, HIGH = normal(0, 4, I), normal(1, S), normal(2, S)
Y = np.abs(normal(3, S, 4, I))
PAIR = {
  'quad1': lambda a, b: a**2 * b**2,
  'quad2': lambda a, b: a * b + a * a + b * b,
  'sum': lambda a, b: a + b,
  'prod': lambda a, b: a * b,
  'sum_prod': lambda a, b: a + b + a * b,
  'cubic1': lambda a, b: a**3 + a * b**2 + b * a**2 + b**3,
  'cubic2': lambda a, b: a**3 * b**3,
}


def test_every_name_is_here():
  assert set(PAIR) == set(FUNCTIONS)


@pytest.mark.parametrize('function', PAIR)
def test_pairs_equal_numpy(function):
  pairs = jax.jit(pair_functions, static_argnums=(3, 4))
  actual = pairs(jnp.asarray(X), LOW, HIGH, jax.nn.silu, function)
  wide, column = X.astype(np.float64), (S, 1, 1)
  a = silu(wide - LOW.reshape(column))
  b = silu(HIGH.reshape(column) - wide)
  assert actual.dtype == jnp.float32
  np.testing.assert_allclose(actual, PAIR[function](a, b), rtol=1e-4, atol=1e-5)


def test_min_max_equals_numpy_and_is_l2mm():
  """The published division by the L2 norm changes nothing."""
  l2 = Y / np.sqrt(np.square(Y).sum())
  for before in (Y, l2):
    expected = (before - before.min()) / (before.max() - before.min())
    np.testing.assert_allclose(min_max(Y, 'batch'), expected, atol=1e-6)
  example = np.asarray(min_max(Y, 'example'))
  np.testing.assert_array_equal(example.min((0, 2)), 0)
  np.testing.assert_allclose(example.max((0, 2)), 1, rtol=1e-6)
  np.testing.assert_array_equal(min_max(Y, 'none'), Y)


def test_only_the_batch_norm_depends_on_other_examples():
  other = Y.copy()
  other[:, 1:] *= 7
  for over, same in (('example', True), ('none', True), ('batch', False)):
    first, again = (np.asarray(min_max(y, over))[:, 0] for y in (Y, other))
    assert np.array_equal(first, again) == same, over


@pytest.mark.parametrize('over', ['example', 'batch'])
def test_min_max_of_a_constant_is_zero_with_finite_gradients(over):
  flat = jnp.full((2, 3, 4), 0.7)
  np.testing.assert_array_equal(min_max(flat, over), 0)
  slope = jax.jit(jax.grad(lambda y: jnp.square(min_max(y, over)).sum()))(flat)
  assert np.isfinite(slope).all()


@pytest.mark.parametrize('temperature', [0.5, 3.0])
def test_reductions_equal_numpy(temperature):
  w, b, divisor = normal(4, S), np.float32(0.3), max(temperature, 1)
  y, t = np.moveaxis(Y.astype(np.float64), 0, -1), jnp.float32(temperature)
  np.testing.assert_allclose(multistep(Y, w, b), y @ w + b, rtol=1e-5, atol=1e-5)
  attention = softmax((y @ w + b) / divisor, 1)
  expected = (y * attention[..., None]).sum(-1)
  actual = jax.jit(global_attention)(Y, w, b, t)
  np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)

  kernel, bias = normal(5, 3, S), normal(6, S)
  logits = np.zeros_like(y) + bias
  for i in range(I):
    for j in range(3):
      if 0 <= i + j - 1 < I:
        logits[:, i] += kernel[j] * y[:, i + j - 1]
  expected = (y * softmax(logits / divisor, 2)).sum(-1)
  actual = jax.jit(spatial_attention)(Y, kernel, bias, t)
  np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)


def test_combinations_equal_numpy():
  a, b, c = normal(0, 3), normal(1, 3), normal(2, 3)
  total, product = a + b + c, a * b * c
  expected = {
    'sum': total,
    'product': product,
    'sum_product': total + product,
    'quadratic': total + product + a**2 + b**2 + c**2,
  }
  assert set(expected) == set(COMBINATIONS)
  for name, value in expected.items():
    np.testing.assert_allclose(COMBINATIONS[name]([a, b, c]), value, rtol=1e-5)
