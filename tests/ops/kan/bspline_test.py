"""B-splines against SciPy, and what a change of grid must keep."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.interpolate import BSpline

from elas_jax.ops.kan import bspline as ops
from elas_jax.ops.kan.bspline import (
  bspline,
  extend_grid,
  noise_start,
  uniform_knots,
  update_grid,
)

I, O, GRID, ORDER = 3, 4, 5, 3
S = GRID + ORDER
bspline_basis = jax.jit(ops.bspline_basis, static_argnums=2)
extend = jax.jit(extend_grid, static_argnums=(2, 3))
update = jax.jit(update_grid, static_argnums=3)


def normal(seed, *shape):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def uneven_knots():
  """Another set of increasing knots for each input."""
  steps = 0.2 + np.random.default_rng(0).uniform(size=(I, GRID + 2 * ORDER + 1))
  return (np.cumsum(steps, 1) - 3).astype(np.float32)


def curves(x, coefficients, knots):
  """The curve of each input and output on its own, (P, I, O), by SciPy in float64."""
  x, c, t = (np.asarray(a, np.float64) for a in (x, coefficients, knots))
  each = [BSpline(t[i], c[i], ORDER, extrapolate=False)(x[:, i]) for i in range(I)]
  return np.stack(each, axis=1)


def test_basis_sums_to_one_inside_the_range_alone():
  knots = uniform_knots(I, GRID, ORDER, -1.5, 1.5)
  inside = np.linspace(-1.5, 1.5, 31, dtype=np.float32)[:, None].repeat(I, 1)
  basis = np.asarray(bspline_basis(inside, knots, ORDER))
  assert basis.shape == (31, I, S) and basis.min() >= 0
  np.testing.assert_allclose(basis.sum(-1), 1, rtol=1e-5)
  outside = np.asarray(bspline_basis(inside - 3.3, knots, ORDER)).sum(-1)
  assert outside.max() < 0.99 and outside[0].max() == 0


def test_basis_has_its_support():
  knots = np.asarray(uniform_knots(1, GRID, ORDER, -1, 1))
  x = np.linspace(-2.5, 2.5, 401, dtype=np.float32)[:, None]
  basis = np.asarray(bspline_basis(x, knots, ORDER))[:, 0]
  for s in range(S):
    inside = (x[:, 0] > knots[0, s] + 1e-3) & (x[:, 0] < knots[0, s + ORDER + 1] - 1e-3)
    outside = (x[:, 0] < knots[0, s]) | (x[:, 0] >= knots[0, s + ORDER + 1])
    assert (basis[inside, s] > 0).all() and (basis[outside, s] == 0).all()


@pytest.mark.parametrize('order', [1, 2, 3])
def test_basis_equals_scipy(order):
  knots = uneven_knots()
  x = np.random.default_rng(1).uniform(-2, 3, size=(6, 7, I)).astype(np.float32)
  basis = np.asarray(bspline_basis(x, knots, order))
  assert basis.shape == (6, 7, I, knots.shape[1] - order - 1)
  for i in range(I):
    for s in range(basis.shape[-1]):
      element = BSpline.basis_element(
        knots[i, s : s + order + 2].astype(np.float64), extrapolate=False
      )
      expected = np.nan_to_num(element(x[..., i].astype(np.float64)))
      np.testing.assert_allclose(basis[..., i, s], expected, atol=2e-5)


@pytest.mark.parametrize('order', [1, 2, 3])
def test_slope_of_the_basis_equals_scipy(order):
  knots = uneven_knots()
  x = np.random.default_rng(1).uniform(-2, 3, size=(40, I)).astype(np.float32)
  weights = normal(2, 40, I, knots.shape[1] - order - 1)
  loss = lambda x, knots: (ops.bspline_basis(x, knots, order) * weights).sum()
  to_x, to_knots = jax.jit(jax.grad(loss, (0, 1)))(x, knots)
  curves = [  # of each input and s
    [
      BSpline.basis_element(knots[i, s : s + order + 2].astype(np.float64), False)
      for s in range(weights.shape[-1])
    ]
    for i in range(I)
  ]
  slopes = [
    np.stack([np.nan_to_num(curve(x[:, i], nu=1)) for curve in curves[i]], -1)
    for i in range(I)
  ]
  expected = np.sum(np.stack(slopes, 1) * weights, -1)
  assert np.abs(expected).max() > 1 and not np.any(to_knots)
  np.testing.assert_allclose(to_x, expected, rtol=1e-4, atol=1e-4)


def test_layer_equals_scipy():
  knots, c = uneven_knots(), normal(2, I, S, O)
  scaler, base = normal(3, I, O), normal(4, I, O)
  low, high = knots[:, ORDER].max(), knots[:, ORDER + GRID].min()
  x = np.random.default_rng(1).uniform(low, high, (9, I)).astype(np.float32)
  y = jax.jit(bspline, static_argnums=(5, 6, 7))(
    x, base, c, scaler, knots, ORDER, jax.nn.silu, jnp.float32
  )
  wide = x.astype(np.float64)
  expected = (curves(x, c, knots) * scaler).sum(1) + wide / (1 + np.exp(-wide)) @ base
  np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)


def test_basis_is_float32_whatever_the_input():
  knots = uniform_knots(I, GRID, ORDER, -1, 1)
  x = jnp.asarray(normal(0, 5, I) / 3, jnp.bfloat16)
  basis = bspline_basis(x, knots, ORDER)
  assert basis.dtype == jnp.float32
  np.testing.assert_array_equal(basis, bspline_basis(x.astype(jnp.float32), knots, ORDER))


@pytest.mark.parametrize('even', [True, False])
def test_extension_keeps_the_curves(even):
  knots = uniform_knots(I, GRID, ORDER, -1, 1) if even else uneven_knots()
  c = normal(1, I, S, O)
  finer, new_knots = extend(jnp.asarray(c), jnp.asarray(knots), ORDER, 3 * GRID)
  assert finer.shape == (I, 3 * GRID + ORDER, O)
  low, high = np.asarray(knots)[:, [ORDER, ORDER + GRID]].T
  x = np.linspace(low + 1e-4, high - 1e-4, 200)
  before, after = curves(x, c, knots), curves(x, finer, new_knots)
  assert np.abs(before).max() > 1
  np.testing.assert_allclose(after, before, atol=2e-4)


def test_extension_to_no_multiple_is_the_nearest_fit():
  c, knots = normal(1, I, S, O), uniform_knots(I, GRID, ORDER, -1, 1)
  new_c, new_knots = extend(jnp.asarray(c), knots, ORDER, 7)
  np.testing.assert_allclose(new_knots, uniform_knots(I, 7, ORDER, -1, 1), atol=1e-6)
  x = np.linspace(-1, 1, 57)[:-1] + 1 / 56  # 4 to 8 points in each of the new intervals
  at = x[:, None].repeat(I, 1)
  left = np.square(curves(at, new_c, new_knots) - curves(at, c, knots)).sum(0)
  design = BSpline.design_matrix(x, np.asarray(new_knots[0], np.float64), ORDER).toarray()
  for i in range(I):
    best = np.linalg.lstsq(design, curves(at, c, knots)[:, i])[1]
    assert (best > 1e-4).all() and (left[i] < 1.5 * best).all()


def test_update_keeps_polynomials_and_follows_the_samples():
  """A cubic is a spline on any knots, so its least-squares fit must be exact."""
  knots = uniform_knots(I, GRID, ORDER, -2, 2)
  x = np.linspace(-2, 1.99, 200)[:, None].repeat(I, 1).astype(np.float32)
  powers = x[:, :1].astype(np.float64) ** np.arange(4) @ normal(0, 4, O)
  basis = np.asarray(bspline_basis(x[:, :1], knots[:1], ORDER), np.float64)[:, 0]
  fitted = np.linalg.lstsq(basis, powers)[0]
  c = jnp.asarray(np.tile(fitted, (I, 1, 1)), jnp.float32)
  samples = np.tanh(normal(5, 300, I)) ** 3 * np.array([1.5, 1, 0.5])
  new_c, new_knots = update(jnp.asarray(samples, jnp.float32), c, knots, ORDER)
  at = np.sort(samples, 0)
  expected = curves(at, c, knots)
  np.testing.assert_allclose(curves(at, new_c, new_knots), expected, atol=5e-3)
  inner = np.asarray(new_knots)[:, ORDER : ORDER + GRID + 1]
  assert (np.diff(new_knots) > 0).all()
  quantiles = np.quantile(samples, np.linspace(0, 1, GRID + 1), axis=0).T
  np.testing.assert_allclose(inner, quantiles, atol=0.04 * np.ptp(samples))
  assert (inner[:, 0] <= samples.min(0) + 1e-6).all()
  assert (inner[:, -1] >= samples.max(0) - 1e-6).all()


def test_update_is_the_nearest_fit():
  """No cubic: what is left at the samples is what NumPy's least squares leaves."""
  c, knots = normal(1, I, S, O), uniform_knots(I, GRID, ORDER, -2, 2)
  samples = np.clip(normal(5, 300, I) * 0.8, -1.9, 1.9)
  new_c, new_knots = update(jnp.asarray(samples), jnp.asarray(c), knots, ORDER)
  old = curves(samples, c, knots)
  left = np.square(curves(samples, new_c, new_knots) - old).sum(0)
  for i in range(I):
    design = BSpline.design_matrix(
      samples[:, i].astype(np.float64), np.asarray(new_knots[i], np.float64), ORDER
    ).toarray()
    best = np.linalg.lstsq(design, old[:, i])[1]
    assert (best > 1e-3).all()
    np.testing.assert_allclose(left[i], best, rtol=1e-3)


def test_start_is_small_noise():
  knots = uniform_knots(I, GRID, ORDER, -1, 1)
  start = jax.jit(noise_start, static_argnums=(1, 2, 4))
  c = start(jax.random.key(0), (I, S, O), jnp.float32, knots, ORDER)
  at_knots = curves(np.linspace(-1, 0.9999, GRID + 1)[:, None].repeat(I, 1), c, knots)
  assert 0.005 < np.abs(at_knots).max() < 0.05 / GRID + 1e-3
  assert np.unique(np.asarray(at_knots)).size == at_knots.size
