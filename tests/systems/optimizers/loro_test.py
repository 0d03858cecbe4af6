"""LORO's exact step against its public code and its formula, in NumPy."""

import jax
import numpy as np
import pytest

from elas_jax.systems.optimizers.loro import exact_step
from tests.conftest import thinned


def normal(seed, *shape):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def published_step(a, b, da, db, lr):
  """The exact step of LORO's code, line by line in float64; (A, B) afterwards.

  There the map is M N^T with M = B^T and N = A, dM and dN are the directions, and the
  tangent vector is held by its coordinates K0, Y1 = Q1 K1 and Y2 = Q2 K2.
  """
  M, N, dM, dN = (np.asarray(x, np.float64) for x in (b.T, a, db.T, da))
  rank = M.shape[1]
  U, Rm = np.linalg.qr(M)
  V, Rn = np.linalg.qr(N)
  GV = np.linalg.solve(Rn.T, dM.T).T
  UtG = np.linalg.solve(Rm.T, dN.T)
  K0 = UtG @ V
  Q1, K1 = np.linalg.qr((UtG - K0 @ V.T).T)
  Q2, K2 = np.linalg.qr(GV - U @ (U.T @ GV))
  zero = np.zeros((rank, rank))
  core = np.block([[Rm @ Rn.T, zero], [zero, zero]]) - lr * np.block(
    [[K0, K1.T], [K2, zero]]
  )
  P, sigma, Zt = np.linalg.svd(core)
  root = np.sqrt(sigma[:rank])
  M = np.hstack([U, Q2]) @ P[:, :rank] * root
  N = np.hstack([V, Q1]) @ Zt[:rank].T * root
  return N, M.T


def cut(w, rank):
  p, sigma, zt = np.linalg.svd(w)
  return (p[:, :rank] * sigma[:rank]) @ zt[:rank], sigma[:rank]


@pytest.mark.parametrize(
  'rows, columns, rank', thinned([(12, 9, 3), (4, 9, 3), (9, 4, 4), (5, 5, 1)], (12, 9, 3))
)
def test_exact_step_of_one_gradient_is_the_cut_projected_step(rows, columns, rank):
  lr = 0.1
  a, b = normal(0, rows, rank), normal(1, rank, columns)
  g = normal(2, rows, columns).astype(np.float64)
  left = np.linalg.qr(a.astype(np.float64))[0]
  right = np.linalg.qr(b.T.astype(np.float64))[0]
  left, right = left @ left.T, right @ right.T
  w = a.astype(np.float64) @ b - lr * (left @ g + g @ right - left @ g @ right)
  new_a, new_b = exact_step(a, b, (g @ b.T).astype('f4'), (a.T @ g).astype('f4'), lr)
  best, sigma = cut(w, rank)
  np.testing.assert_allclose(np.asarray(new_a) @ new_b, best, rtol=1e-4, atol=2e-5)
  np.testing.assert_allclose(new_a.T @ new_a, np.diag(sigma), rtol=1e-4, atol=2e-5)
  np.testing.assert_allclose(new_b @ new_b.T, np.diag(sigma), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize(
  'rows, columns, rank', thinned([(12, 9, 3), (8, 20, 4), (9, 9, 1)], (12, 9, 3))
)
def test_exact_step_is_the_published_one(rows, columns, rank):
  """In float64, of directions with no common gradient: Adam's have none either."""
  random = np.random.default_rng(rows + columns + rank)
  a, da = random.normal(size=(2, rows, rank))
  b, db = random.normal(size=(2, rank, columns))
  golden_a, golden_b = published_step(a, b, da, db, 0.2)
  with jax.enable_x64(True):
    new_a, new_b = (np.asarray(x) for x in exact_step(a, b, da, db, 0.2))
  assert new_a.dtype == np.float64
  np.testing.assert_allclose(new_a @ new_b, golden_a @ golden_b, rtol=0, atol=1e-12)
  # The factors too, up to the sign that a pair of singular vectors is free in.
  signs = np.sign((new_a * golden_a).sum(0))
  np.testing.assert_allclose(new_a * signs, golden_a, rtol=0, atol=1e-12)
  np.testing.assert_allclose(signs[:, None] * new_b, golden_b, rtol=0, atol=1e-12)


def test_exact_step_without_a_gradient_keeps_the_map():
  a, b = normal(0, 9, 3), normal(1, 3, 7)
  new_a, new_b = exact_step(a, b, 0 * a, 0 * b, 0.2)
  np.testing.assert_allclose(np.asarray(new_a) @ new_b, a @ b, rtol=1e-4, atol=1e-5)


def test_stacked_layers_step_as_separate_ones():
  a, b, da, db = (normal(i, *s) for i, s in enumerate([(2, 4, 9, 3), (2, 4, 3, 7)] * 2))
  stacked = exact_step(a, b, da, db, 0.2)
  for i in np.ndindex(2, 4):
    one = exact_step(a[i], b[i], da[i], db[i], 0.2)
    for ours, alone in zip(stacked, one):
      # Factors are unique up to the signs of their columns.
      np.testing.assert_allclose(np.abs(ours[i]), np.abs(alone), rtol=1e-4, atol=1e-5)
    product = np.asarray(stacked[0][i]) @ stacked[1][i]
    np.testing.assert_allclose(product, one[0] @ one[1], rtol=1e-4, atol=1e-5)
