"""Wavelets, radial functions, ReLU bumps, SKAN and patches against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.interpolate import BSpline

from elas_jax.ops.kan.base import centres, mix, overlapping_intervals, per_input
from elas_jax.ops.kan.bspline import bspline_basis, uniform_knots
from elas_jax.ops.kan.fourier import fourier_basis
from elas_jax.ops.kan.patches import patches
from elas_jax.ops.kan.radial import bspline_radial_basis, gaussian_basis, switch_basis
from elas_jax.ops.kan.relu import relu_basis
from elas_jax.ops.kan.skan import EDGES, arctan, skan
from elas_jax.ops.kan.wavelet import WAVELETS, wavelet_basis

I, O, GRID, ORDER = 3, 4, 5, 3


def normal(seed, *shape):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


X = normal(0, 9, I)
WIDE = X.astype(np.float64)


def meyer(t):
  t = np.abs(t)
  u = 2 * t - 1
  v = u**4 * (35 - 84 * u + 70 * u**2 - 20 * u**3)
  auxiliary = np.where(t <= 0.5, 1, np.where(t >= 1, 0, np.cos(np.pi / 2 * v)))
  return np.sin(np.pi * t) * auxiliary


PSI = {
  'mexican_hat': lambda t: 2 / (3**0.5 * np.pi**0.25) * (1 - t**2) * np.exp(-(t**2) / 2),
  'morlet': lambda t: np.cos(5 * t) * np.exp(-(t**2) / 2),
  'dog': lambda t: -t * np.exp(-(t**2) / 2),
  'meyer': meyer,
  'shannon': lambda t: (np.sin(2 * np.pi * t) - np.sin(np.pi * t)) / (np.pi * t),
}


@pytest.mark.parametrize('name', WAVELETS)
def test_wavelets_equal_numpy(name):
  scale, translation = 1 + np.abs(normal(1, I, 4)), normal(2, I, 4)
  basis = jax.jit(wavelet_basis, static_argnums=3)(X, scale, translation, name)
  expected = PSI[name]((WIDE[..., None] - translation) / scale.astype(np.float64))
  assert basis.shape == (9, I, 4) and np.abs(expected).max() > 0.1
  np.testing.assert_allclose(basis, expected, atol=1e-5)


@pytest.mark.parametrize('name', WAVELETS)
def test_wavelets_have_derivatives_where_their_formulas_bend(name):
  at = jnp.array([-1.0, -0.5, 0.0, 0.5, 1.0, 50.0])
  slopes = jax.jit(jax.vmap(jax.grad(WAVELETS[name])))(at)
  assert np.isfinite(slopes).all() and np.abs(slopes).max() > 0.1


def test_gaussians_equal_numpy():
  basis = gaussian_basis(X, 8, -2, 2)
  expected = np.exp(-(((WIDE[..., None] - np.linspace(-2, 2, 8)) * 7 / 4) ** 2))
  np.testing.assert_allclose(basis, expected, atol=1e-6)


def test_switches_and_their_gradient_equal_numpy():
  offsets = WIDE[..., None] - np.linspace(-1.2, 0.2, 8)
  expected = 1 / np.cosh(offsets) ** 2
  np.testing.assert_allclose(switch_basis(X, 8, -1.2, 0.2), expected, atol=1e-6)
  slope = jax.jit(jax.grad(lambda x: switch_basis(x, 8, -1.2, 0.2).sum()))(X)
  expected = (-2 * np.tanh(offsets) * expected).sum(-1)
  np.testing.assert_allclose(slope, expected, atol=1e-5)


def test_splines_with_gaussians_equal_both():
  x = np.clip(X, -1.4, 1.4)
  basis_of = jax.jit(bspline_radial_basis, static_argnums=(1, 2, 3, 4))
  basis = basis_of(jnp.asarray(x, jnp.bfloat16), GRID, ORDER, -1.5, 1.5)
  assert basis.dtype == jnp.float32
  wide = np.asarray(jnp.asarray(x, jnp.bfloat16), np.float64)
  knots = -1.5 + 0.6 * np.arange(-3, 9)
  splines = BSpline.design_matrix(wide.reshape(-1), knots, ORDER).toarray()
  gaussians = np.exp(-(((wide[..., None] - np.linspace(-1.5, 1.5, 8)) / 3 * 7) ** 2))
  np.testing.assert_allclose(basis, splines.reshape(9, I, 8) + gaussians, atol=1e-5)


def test_bases_are_float32_whatever_the_input():
  x = jax.ShapeDtypeStruct((9, I), jnp.bfloat16)
  weights = jax.ShapeDtypeStruct((I, 4), jnp.bfloat16)
  bases = [
    lambda x, w: gaussian_basis(x, 8, -2, 2),
    lambda x, w: switch_basis(x, 8, -2, 2),
    lambda x, w: fourier_basis(x, 4),
    lambda x, w: relu_basis(x, w, w, 1.0),
    lambda x, w: wavelet_basis(x, w, w, 'morlet'),
  ]
  for basis in bases:
    shape = jax.eval_shape(basis, x, weights)
    assert shape.dtype == jnp.float32 and shape.shape[:2] == (9, I)


def test_one_centre_is_in_the_middle():
  np.testing.assert_array_equal(centres(1, -1, 2), [0.5])
  np.testing.assert_array_equal(centres(3, -1, 2), [-1, 0.5, 2])


def test_relu_basis_equals_numpy_and_peaks_at_one():
  starts, ends = overlapping_intervals(GRID, ORDER, 0, 1)
  np.testing.assert_allclose(starts, np.arange(-3, 5) / 5, atol=1e-7)
  np.testing.assert_allclose(ends - starts, 4 / 5, atol=1e-6)
  width = (ORDER + 1) / GRID
  starts_IxS, ends_IxS = (np.tile(a, (I, 1)) for a in (starts, ends))
  middle = np.tile((starts + ends) / 2, (I, 1)).T
  peaks = relu_basis(middle, starts_IxS, ends_IxS, width)
  np.testing.assert_allclose(np.diagonal(peaks, axis1=0, axis2=2), 1, rtol=1e-5)
  trained = starts_IxS + 0.1 * normal(1, I, 8), ends_IxS + 0.1 * normal(2, I, 8)
  s, e = (a.astype(np.float64) for a in trained)
  r = 4 * GRID**2 / (ORDER + 1) ** 2
  positive = lambda a: np.maximum(a, 0)
  expected = (positive(WIDE[..., None] - s) * positive(e - WIDE[..., None]) * r) ** 2
  actual = relu_basis(X, *trained, width)
  np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_relu_kan_of_several_inputs_is_the_sum_over_single_ones():
  starts, ends, c = normal(1, I, 8) - 1, normal(2, I, 8) + 1, normal(3, I, 8, O)
  together = mix(relu_basis(X, starts, ends, 2.0), c, jnp.float32)
  single = sum(
    relu_basis(X[:, i : i + 1], starts[i : i + 1], ends[i : i + 1], 2.0)[:, 0] @ c[i]
    for i in range(I)
  )
  assert np.abs(single).max() > 1
  np.testing.assert_allclose(together, single, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('edge', EDGES)
def test_skan_equals_a_loop_over_edges(edge):
  k = normal(1, I + 1, O)
  scaled = {
    'arctan': lambda k, x: k * np.arctan(x),
    'sin': lambda k, x: k * np.sin(x),
    'cos': lambda k, x: k * np.cos(x),
    'relu': lambda k, x: np.maximum(k * x, 0),
  }[edge]
  expected = scaled(k[-1:].astype(np.float64), 1.0)
  for i in range(I):
    expected = expected + scaled(k[i][None], WIDE[:, i : i + 1])
  np.testing.assert_allclose(skan(X, k, edge, jnp.float32), expected, rtol=1e-4, atol=1e-5)


def test_arctan_and_its_slope_equal_numpy():
  sizes = np.concatenate([np.logspace(-30, 30, 6001), np.linspace(0, 4, 40001)])
  x = np.concatenate([sizes, -sizes]).astype(np.float32)
  expected = np.arctan(x.astype(np.float64))
  error = np.abs(np.asarray(jax.jit(arctan)(x), np.float64) - expected)
  assert (error / np.spacing(np.abs(expected.astype(np.float32)))).max() <= 3
  slope = jax.jit(jax.vmap(jax.grad(arctan)))(x)
  expected = 1 / (1 + x.astype(np.float64) ** 2)
  np.testing.assert_allclose(slope, expected, rtol=1e-6, atol=2e-38)  # no subnormals
  ends = np.asarray(arctan(jnp.array([-jnp.inf, -0.0, jnp.inf, jnp.nan])))
  np.testing.assert_allclose(ends, [-np.pi / 2, 0, np.pi / 2, np.nan], rtol=1e-6)
  assert np.signbit(ends[1])


@pytest.mark.parametrize(
  'basis',
  [
    lambda x: bspline_basis(x, uniform_knots(I, 5, 3, -1, 1), 3),
    lambda x: bspline_radial_basis(x, 5, 3, -1, 1),
    lambda x: fourier_basis(x, 4),
  ],
)
def test_a_basis_keeps_its_slopes_alone(basis):
  backward = jax.jit(lambda x: jax.vjp(basis, x)[1])(X)
  assert [leaf.shape for leaf in jax.tree.leaves(backward)] == [(9, I, 8)]


def test_slopes_of_a_basis_reach_its_input_twice():
  """The gradient and, through it, the second derivative."""
  basis = lambda x: per_input(lambda x: jnp.stack([x**n for n in range(4)], -1), x)
  weights = normal(1, 9, I, 4)
  slope = jax.grad(lambda x: (basis(x) * weights).sum())
  expected = (weights[..., 1:] * [1, 2, 3] * WIDE[..., None] ** [0, 1, 2]).sum(-1)
  np.testing.assert_allclose(slope(X), expected, rtol=1e-4, atol=1e-4)
  expected = (weights[..., 2:] * [2, 6] * WIDE[..., None] ** [0, 1]).sum(-1)
  second = jax.jit(jax.grad(lambda x: slope(x).sum()))(X)
  np.testing.assert_allclose(second, expected, rtol=1e-4, atol=1e-4)


def test_mix_equals_numpy():
  basis, c = normal(1, 2, 5, I, 6), normal(2, I, 6, O)
  y = mix(jnp.asarray(basis), jnp.asarray(c), jnp.float32)
  expected = np.einsum('blis,iso->blo', basis.astype(np.float64), c)
  np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
  assert mix(jnp.asarray(basis), jnp.asarray(c), jnp.bfloat16).dtype == jnp.float32


@pytest.mark.parametrize('width', [3, 1])
@pytest.mark.parametrize('stride', [1, 2])
def test_patches_are_those_of_a_loop(stride, width):
  x = normal(0, 2, 6, 6, 3)
  actual = np.asarray(patches(jnp.asarray(x), (3, width), stride))
  padded = np.pad(x, ((0, 0), (1, 1), (width // 2, width // 2), (0, 0)))
  assert actual.shape == (2, 6 // stride, 6 // stride, 9 * width)
  for row in range(6 // stride):
    for column in range(6 // stride):
      top, left = row * stride, column * stride
      window = padded[:, top : top + 3, left : left + width].transpose(0, 3, 1, 2)
      np.testing.assert_array_equal(actual[:, row, column], window.reshape(2, -1))
