"""Rational functions against float64: values, gradients, memory, fits and gains."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elas_jax.ops import rational as ops
from elas_jax.ops.rational import DENOMINATORS, PRESETS, rational
from tests.conftest import thinned

G = 4
# Published coefficients of swish and GELU (KAT's init.json).
SWISH = (
  (3.0549e-7, 0.50000079, 0.24999783, 0.05326628, 0.00580303, 0.00027520),
  (-4.11e-6, 0.10652899, -1.269e-6, 0.00055023),
)
GELU = (
  (-0.00153969, 0.51692871, 0.44075827, 0.0972553, -0.00884418, -0.00378675),
  (-0.14171056, -0.06481231, -0.0444695, 0.01283776),
)


def formula(x, a, b, denominator):
  """F by sums of powers, in the dtype of what it gets."""
  of = lambda c, i: c[None, :, i, None]
  t = x.reshape(-1, b.shape[0], x.shape[-1] // b.shape[0])
  p = sum(of(a, i) * t**i for i in range(6))
  if denominator == 'absolute_terms':
    q = 1 + sum(abs(of(b, j - 1)) * abs(t) ** j for j in range(1, 5))
  else:
    q = 1 + abs(sum(of(b, j - 1) * t**j for j in range(1, 5)))
  return (p / q).reshape(x.shape)


def draw(rows=1, shape=(2, 6, 8), seed=0):
  """(x, a, b, cotangent), float32 and nowhere near a kink."""
  random = np.random.default_rng(seed)
  x, g = random.normal(size=shape), random.normal(size=shape)
  x = np.where(abs(x) < 0.05, 0.5, 2 * x)
  a, b = random.normal(size=(rows, 6)), random.normal(size=(G, 4))
  return tuple(np.float32(y) for y in (x, a, b, g))


def wide_gradients(x, a, b, g, denominator):
  """Of sum(F g), by autodiff of the formula in float64."""
  with jax.enable_x64(True):
    loss = lambda x, a, b: (formula(x, a, b, denominator) * g).sum()
    arrays = (jnp.asarray(y, jnp.float64) for y in (x, a, b))
    return [np.asarray(y) for y in jax.jit(jax.grad(loss, (0, 1, 2)))(*arrays)]


def gradients(function, x, a, b, g):
  return jax.jit(lambda x, a, b: jax.vjp(function, x, a, b)[1](g))(x, a, b)


cases = pytest.mark.parametrize('denominator', DENOMINATORS)
numerators = pytest.mark.parametrize('rows', [1, G])


@cases
@numerators
def test_value_and_gradients_equal_float64(denominator, rows):
  x, a, b, g = draw(rows)
  function = lambda x, a, b: rational(x, a, b, denominator)
  expected = formula(*(np.float64(y) for y in (x, a, b)), denominator)
  np.testing.assert_allclose(function(x, a, b), expected, rtol=1e-4, atol=1e-5)
  found = gradients(function, x, a, b, g)
  for ours, exact in zip(found, wide_gradients(x, a, b, g, denominator), strict=True):
    assert ours.shape == exact.shape
    np.testing.assert_allclose(ours, exact, rtol=1e-4, atol=1e-4)


@cases
@numerators
def test_gradients_equal_finite_differences(denominator, rows):
  x, a, b, g = draw(rows, seed=1)
  found = gradients(lambda x, a, b: rational(x, a, b, denominator), x, a, b, g)
  arrays, random = [np.float64(y) for y in (x, a, b)], np.random.default_rng(2)
  for number, gradient in enumerate(found):
    direction, values = random.normal(size=gradient.shape), []
    for h in (1e-6, -1e-6):
      moved = [y + h * direction if i == number else y for i, y in enumerate(arrays)]
      values.append((formula(*moved, denominator) * g).sum())
    slope = (values[0] - values[1]) / 2e-6
    np.testing.assert_allclose((gradient * direction).sum(), slope, rtol=1e-4, atol=1e-4)


def test_denominators_that_start_at_zero_can_be_learnt():
  x, _, _, g = draw()
  a, b = np.float32([[0, 1, 0, 0, 0, 0]]), np.zeros((G, 4), np.float32)
  for denominator, base in (('absolute_terms', abs(x)), ('absolute_sum', x)):
    function = functools.partial(rational, denominator=denominator)
    _, _, db = gradients(function, x, a, b, g)
    slopes = np.stack([-(x * base**j * g) for j in range(1, 5)], -1)
    expected = slopes.reshape(-1, G, 2, 4).astype(np.float64).sum((0, 2))
    np.testing.assert_allclose(db, expected, rtol=1e-4, atol=1e-4)
    assert np.abs(db).min() > 1e-3


def test_only_the_input_is_saved():
  x, a, b, _ = draw(shape=(64, 8))
  x = jnp.asarray(x, jnp.bfloat16)
  _, vjp = jax.vjp(rational, x, a, b)
  saved = [(y.shape, y.dtype) for y in jax.tree.leaves(vjp)]
  assert sorted(saved, key=str) == sorted(((y.shape, y.dtype) for y in (x, a, b)), key=str)


def test_bf16_is_computed_in_float32():
  x, a, b, g = draw()
  x, g = jnp.asarray(x, jnp.bfloat16), jnp.asarray(g, jnp.bfloat16)
  y = rational(x, a, b)
  dx, da, db = gradients(rational, x, a, b, g)
  assert y.dtype == dx.dtype == jnp.bfloat16
  assert da.dtype == db.dtype == jnp.float32
  expected = formula(*(np.float64(z) for z in (x, a, b)), 'absolute_terms')
  np.testing.assert_allclose(np.float64(y), expected, rtol=2**-8, atol=1e-6)
  exact = wide_gradients(np.float64(x), a, b, np.float64(g), 'absolute_terms')
  np.testing.assert_allclose(da, exact[1], rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(db, exact[2], rtol=1e-4, atol=1e-4)


def test_large_inputs_stay_finite():
  x, (_, a, b, _) = np.full((1, 8), 1e6, np.float32), draw()
  dx, da, db = gradients(rational, x, a, b, np.ones_like(x))
  assert all(np.isfinite(y).all() for y in (rational(x, a, b), dx, da, db))


def test_sums_of_a_million_are_as_accurate_as_autodiffs():
  """Relative to the sum of moduli; all of one sign, the worst case for an accumulator."""
  x = np.float32(np.random.default_rng(0).normal(size=(2048, 512)))
  a, b = (np.float32([c] * n) for c, n in zip(SWISH, (1, G)))
  g = np.ones_like(x)
  exact = wide_gradients(x, a, b, g, 'absolute_terms')[1:]
  moduli = wide_gradients(abs(x), a, b, g, 'absolute_terms')[1:]
  autodiff = functools.partial(formula, denominator='absolute_terms')
  worst = {}
  for name, function in (('ours', rational), ('autodiff', autodiff)):
    found = gradients(function, x, a, b, g)[1:]
    errors = [abs(y - z) / abs(m) for y, z, m in zip(found, exact, moduli)]
    worst[name] = max(error.max() for error in errors)
  # Below one unit in the last place who is better is chance.
  assert worst['ours'] <= max(worst['autodiff'], 2**-23)


def test_sharded_rows_are_not_gathered():
  x, a, b, g = draw(shape=(8192, 8))
  mesh = jax.make_mesh((4,), ('data',), (jax.sharding.AxisType.Auto,))
  rows = jax.sharding.NamedSharding(mesh, jax.P('data'))
  all_of_it = jax.sharding.NamedSharding(mesh, jax.P())
  step = jax.jit(
    lambda x, a, b, g: jax.vjp(rational, x, a, b)[1](g),
    in_shardings=(rows, all_of_it, all_of_it, rows),
    out_shardings=(rows, all_of_it, all_of_it),
  )
  assert 'all-gather' not in step.lower(x, a, b, g).compile().as_text()
  for ours, exact in zip(step(x, a, b, g), wide_gradients(x, a, b, g, 'absolute_terms')):
    np.testing.assert_allclose(ours, exact, rtol=1e-3, atol=1e-3)


@cases
@pytest.mark.parametrize('name', thinned(PRESETS, *list(PRESETS)[:2]))
def test_presets_are_within_their_bounds(denominator, name):
  target, bound = PRESETS[name]
  x = np.linspace(-3, 3, 5001)
  a, b = (np.array([c]) for c in ops.preset(name, denominator))
  y = formula(x[:, None], a, b, denominator)[:, 0]
  error = np.abs(y - target(x)).max()
  assert error <= bound
  np.testing.assert_allclose(ops.evaluate(x, a[0], b[0], denominator), y, atol=1e-12)
  # Beyond the span it drifts, but not wildly.
  far = np.array([[-8.0], [8.0]])
  drift = formula(far, a, b, denominator) - target(far)
  assert np.abs(drift).max() < 2.5


def test_published_swish_and_gelu():
  """GELU's published fit is of the other denominator than the published kernel's."""
  x = np.linspace(-3, 3, 5001)
  error = lambda c, name, of: np.abs(ops.evaluate(x, *c, of) - PRESETS[name][0](x)).max()
  assert error(SWISH, 'swish', 'absolute_terms') < 2e-6
  assert error(GELU, 'gelu', 'absolute_sum') < 0.0031
  assert abs(error(GELU, 'gelu', 'absolute_terms') - 1.465) < 1e-3
  own = ops.evaluate(x, *ops.preset('swish', 'absolute_terms'), 'absolute_terms')
  np.testing.assert_allclose(own, ops.evaluate(x, *SWISH, 'absolute_terms'), atol=3e-6)


@pytest.mark.parametrize('denominator', thinned(DENOMINATORS, *list(DENOMINATORS)[:1]))
def test_gains(denominator):
  """1 / E F(x)^2 of the target functions; 2.352 and 2.811 replace KAT's constants."""
  exact = {'identity': 1.0, 'swish': 2.811, 'gelu': 2.352, 'gelu_old': 2.352}
  exact |= {'tanh': 2.536, 'sigmoid': 3.409, 'relu': 2.0, 'leaky_relu': 2.0}
  for name, value in exact.items():
    assert abs(ops.gain(name, denominator) / value - 1) < 1.5e-3, name
