"""Quadratic maps against NumPy in float64; at ReLinear's start, against plain ones."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elas_jax.ops.linear import dense
from elas_jax.ops.quadratic import FORMS, convolve, quadratic

I, O = 8, 6


def normal(seed, *shape):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def draw(form, shape=(I, O)):
  names = [f'{kind}_{branch}' for branch in FORMS[form] for kind in ('kernel', 'bias')]
  shapes = {name: shape if name.startswith('kernel') else shape[-1:] for name in names}
  return {name: normal(n, *shapes[name]) for n, name in enumerate(names)}


def by_formula(form, x, p, linear):
  """In float64, written out form by form."""
  x, p = np.float64(x), {name: np.float64(value) for name, value in p.items()}
  r = lambda: linear(x, p['kernel_r']) + p['bias_r']
  g = lambda: linear(x, p['kernel_g']) + p['bias_g']
  b = lambda: linear(x**2, p['kernel_b']) + p['bias_b']
  return {
    'full': lambda: r() * g() + b(),
    'compact': lambda: r() + b(),
    'hadamard': lambda: r() * g(),
    'square': b,
  }[form]()


def patches(x, kernel, stride, padding):
  """A convolution as sums over explicit windows."""
  high, wide = kernel.shape[:2]
  x = np.pad(x, ((0, 0), *padding, (0, 0)))
  rows = range(0, x.shape[1] - high + 1, stride[0])
  columns = range(0, x.shape[2] - wide + 1, stride[1])
  window = lambda i, j: x[:, i : i + high, j : j + wide]
  values = [
    [np.einsum('bhwi,hwio->bo', window(i, j), kernel) for j in columns] for i in rows
  ]
  return np.array(values).transpose(2, 0, 1, 3)


def start(kernel, bias):
  """ReLinear's start around a plain layer."""
  zeros, none = np.zeros_like(kernel), np.zeros_like(bias)
  p = {'kernel_r': kernel, 'bias_r': bias, 'kernel_g': zeros, 'bias_g': none + 1}
  return p | {'kernel_b': zeros, 'bias_b': none}


@pytest.mark.parametrize('form', FORMS)
def test_dense_forms(form):
  x, p = normal(9, 2, 5, I), draw(form)
  expected = by_formula(form, x, p, np.matmul)
  np.testing.assert_allclose(quadratic(x, p), expected, rtol=1e-4, atol=1e-4)
  small = quadratic(jnp.asarray(x, jnp.bfloat16), p)
  assert small.dtype == jnp.bfloat16


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('stride', [(1, 1), (2, 3)])
def test_convolution_equals_explicit_patches(form, stride):
  x, p = normal(9, 2, 7, 8, 3), draw(form, (3, 2, 3, 4))
  for name, padding in (('VALID', ((0, 0),) * 2), (((1, 2), (0, 1)), ((1, 2), (0, 1)))):
    linear = functools.partial(convolve, stride=stride, padding=name)
    y = quadratic(x, p, linear)
    expected = by_formula(form, x, p, lambda x, k: patches(x, k, stride, padding))  # noqa: B023
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)
  assert convolve(x, p[f'kernel_{FORMS[form][0]}']).shape == (2, 7, 8, 4)


@pytest.mark.parametrize('form', FORMS)
def test_gradients_equal_finite_differences(form):
  x, p, goal = normal(9, 5, I), draw(form), normal(8, 5, O)
  loss = lambda x, p: (quadratic(x, p) * goal).sum()
  found = jax.jit(jax.grad(loss, (0, 1)))(x, p)
  for number, leaf in enumerate(jax.tree.leaves(found)):
    leaves, tree = jax.tree.flatten((np.float64(x), jax.tree.map(np.float64, p)))
    direction = normal(number, *leaf.shape)
    values = []
    for h in (1e-6, -1e-6):
      moved = [y + h * direction if i == number else y for i, y in enumerate(leaves)]
      values.append((by_formula(form, *tree.unflatten(moved), np.matmul) * goal).sum())
    slope = (values[0] - values[1]) / 2e-6
    np.testing.assert_allclose((leaf * direction).sum(), slope, rtol=1e-3, atol=1e-3)


def plain_dense(x, kernel, bias):
  """Rounded once, after the bias."""
  y = dense(x, kernel.astype(x.dtype), jnp.float32)
  return (y + bias.reshape(1, 1, -1)).astype(x.dtype)


def test_a_small_term_is_not_lost_in_bf16():
  x, plain = normal(0, 1, 64, 65), (normal(1, 65, 130), normal(2, 130))
  p = start(*plain) | {'kernel_g': 1e-4 * normal(3, 65, 130)}
  difference = lambda x: np.float64(quadratic(x, p)) - np.float64(plain_dense(x, *plain))
  found, change = difference(jnp.asarray(x, jnp.bfloat16)), difference(jnp.asarray(x))
  # Single entries are rounded, but not all in one direction.
  np.testing.assert_allclose((found * change).sum() / (change**2).sum(), 1, atol=0.3)


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_the_start_is_the_plain_layer_bit_for_bit(dtype):
  x = jnp.asarray(100 * normal(0, 3, 33, 65), dtype)
  kernel, bias = normal(1, 65, 130), normal(2, 130)
  p = start(kernel, bias)
  goal = jnp.asarray(normal(3, 3, 33, 130), dtype)

  def both(function, *arguments):
    y, vjp = jax.vjp(function, *arguments)
    return y, vjp(goal)

  for wrap in (lambda f: f, jax.jit) if dtype == jnp.float32 else (jax.jit,):
    run = wrap(functools.partial(both, quadratic))
    y, (dx, dp) = run(x, p)
    plain, (plain_dx, dkernel, dbias) = wrap(functools.partial(both, plain_dense))(
      x, kernel, bias
    )
    for ours, expected in (y, plain), (dx, plain_dx), (dp['kernel_r'], dkernel):
      assert ours.dtype == expected.dtype
      np.testing.assert_array_equal(np.float64(ours), np.float64(expected))
    # A sum over rows, which XLA may order in another way.
    close = {'rtol': 0.01, 'atol': 0.05} if dtype == jnp.bfloat16 else {'rtol': 1e-4}
    np.testing.assert_allclose(np.float64(dp['bias_r']), np.float64(dbias), **close)


def test_gradient_of_g_at_the_start():
  """X^T ((x W_r + b_r) delta), so that learning can begin; of W_b, (x * x)^T delta."""
  x, kernel, bias, delta = normal(0, 7, I), normal(1, I, O), normal(2, O), normal(3, 7, O)
  loss = lambda p: (quadratic(x, p) * delta).sum()
  found = jax.jit(jax.grad(loss))(start(kernel, bias))
  wide = np.float64(x)
  r_delta = (wide @ kernel + bias) * delta
  np.testing.assert_allclose(found['kernel_g'], wide.T @ r_delta, rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(found['bias_g'], r_delta.sum(0), rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(found['kernel_b'], (wide**2).T @ delta, rtol=1e-4, atol=1e-4)
  assert np.abs(found['kernel_g']).min() > 0


def test_squares_are_not_saved():
  x, p = normal(0, 50, I), draw('full')
  _, vjp = jax.vjp(quadratic, x, p)
  parameters = [y.shape for y in p.values()]
  saved = [y for y in jax.tree.leaves(vjp) if y.shape not in parameters]
  wide = [y for y in saved if y.shape == (50, I)]
  assert wide and all((y == x).all() for y in wide)
  assert {y.shape for y in saved} == {(50, I), (50, O)}
  assert len([y for y in saved if y.shape == (50, O)]) == 2
