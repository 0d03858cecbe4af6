"""Polynomials and Fourier series against numpy.polynomial and NumPy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.polynomial import chebyshev, hermite_e, laguerre, legendre
from scipy.special import eval_jacobi

from elas_jax.ops.kan.fourier import fourier_basis
from elas_jax.ops.kan.polynomial import (
  RECURRENCES,
  orthogonal_polynomials,
  polynomial_basis,
)

DEGREE = 6
X = np.random.default_rng(0).uniform(-1.5, 1.5, (5, 3)).astype(np.float32)
WIDE = X.astype(np.float64)
FACTORIALS = np.array([math.factorial(n) for n in range(DEGREE + 1)])
EXPECTED = {
  'chebyshev': lambda x: chebyshev.chebvander(x, DEGREE),
  'legendre': lambda x: legendre.legvander(x, DEGREE),
  'hermite': lambda x: hermite_e.hermevander(x, DEGREE) / np.sqrt(FACTORIALS),
  'laguerre': lambda x: laguerre.lagvander(x, DEGREE),
  'jacobi': lambda x: eval_jacobi(np.arange(DEGREE + 1), 1, 1, x[..., None]),
}
DOMAINS = {'hermite': lambda x: x, 'laguerre': lambda x: np.log1p(np.exp(x))}


def test_every_polynomial_is_here():
  assert set(EXPECTED) == set(RECURRENCES)


@pytest.mark.parametrize('name', EXPECTED)
def test_recurrence_equals_numpy(name):
  values = orthogonal_polynomials(X, DEGREE, name)
  np.testing.assert_allclose(values, EXPECTED[name](WIDE), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('name', EXPECTED)
def test_basis_is_on_the_polynomials_domain(name):
  x = jnp.asarray(X, jnp.bfloat16)
  basis = polynomial_basis(x, DEGREE, name)
  assert basis.shape == (5, 3, DEGREE + 1) and basis.dtype == jnp.float32
  there = DOMAINS.get(name, np.tanh)(np.asarray(x, np.float64))
  np.testing.assert_allclose(basis, EXPECTED[name](there), rtol=1e-4, atol=1e-4)


def test_chebyshev_is_the_cosine_of_a_multiple_angle():
  basis = polynomial_basis(X, DEGREE, 'chebyshev')
  angles = np.arccos(np.tanh(WIDE))[..., None] * np.arange(DEGREE + 1)
  np.testing.assert_allclose(basis, np.cos(angles), atol=1e-5)


def test_chebyshev_has_finite_gradients_where_tanh_rounds_to_one():
  far = jnp.array([-1e4, -30.0, 0.0, 30.0, 1e4])
  slope = jax.jit(jax.grad(lambda x: polynomial_basis(x, 5, 'chebyshev').sum()))(far)
  assert np.isfinite(slope).all() and slope[2] != 0


def test_fourier_equals_numpy():
  basis = np.asarray(fourier_basis(jnp.asarray(X), 4))
  assert basis.shape == (5, 3, 8)
  for k in range(1, 5):
    np.testing.assert_allclose(basis[..., k - 1], np.cos(k * WIDE), atol=1e-5)
    np.testing.assert_allclose(basis[..., k + 3], np.sin(k * WIDE), atol=1e-5)


@pytest.mark.parametrize('frequencies', [1, 2, 5, 64])
def test_fourier_and_its_slope_do_not_lose_digits_on_the_way_up(frequencies):
  x = np.linspace(-6, 6, 301).astype(np.float32)[:, None]
  angles = x.astype(np.float64)[..., None] * np.arange(1, frequencies + 1)
  expected = np.concatenate([np.cos(angles), np.sin(angles)], -1)
  basis = lambda x: fourier_basis(x, frequencies)
  np.testing.assert_allclose(jax.jit(basis)(x), expected, atol=3e-7 + 1e-7 * frequencies)
  k = np.arange(1, frequencies + 1)
  expected = np.concatenate([-k * np.sin(angles), k * np.cos(angles)], -1)
  slopes = jax.jit(lambda x: jax.jvp(basis, (x,), (jnp.ones_like(x),))[1])(x)
  np.testing.assert_allclose(slopes, expected, atol=1e-6 * frequencies**2)
