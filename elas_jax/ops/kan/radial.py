"""Radial bases: FastKAN's Gaussians, FasterKAN's reflectional switches, BSRBF-KAN."""

import jax
import jax.numpy as jnp

from elas_jax.ops.kan.base import centres, lead, per_input
from elas_jax.ops.kan.bspline import cox_de_boor, uniform_knots


def gaussian_basis(x: jax.Array, count: int, low: float, high: float) -> jax.Array:
  """exp(-((x - c) / h)^2), c evenly spaced by h: (..., I) -> (..., I, count), float32.

  FastKAN (arXiv 2405.06721).
  """
  width = (high - low) / max(count - 1, 1)
  return jnp.exp(-((_offsets(x, count, low, high) / width) ** 2))


def switch_basis(x: jax.Array, count: int, low: float, high: float) -> jax.Array:
  """1 - tanh^2(x - c), c evenly spaced: (..., I) -> (..., I, count), float32.

  FasterKAN's RSWAF. Its own backward pass multiplies by 1/2 what the forward pass does
  not; here the gradient is that of the formula.
  """
  return 1 - jnp.tanh(_offsets(x, count, low, high)) ** 2


def bspline_radial_basis(
  x: jax.Array, grid: int, order: int, low: float, high: float
) -> jax.Array:
  """B_s(x) + exp(-((x - c_s) / h)^2): (..., I) -> (..., I, grid + order), float32.

  BSRBF-KAN (arXiv 2406.11173); both share one set of coefficients.
  """
  knots_IxM = uniform_knots(x.shape[-1], grid, order, low, high)
  gaussians = lambda x: gaussian_basis(x, grid + order, low, high)
  # Together, so that the gradient keeps the slopes of the sum alone.
  both = lambda x, knots_IxM: cox_de_boor(x, knots_IxM, order) + gaussians(x)
  return per_input(both, x, knots_IxM)


def _offsets(x: jax.Array, count: int, low: float, high: float) -> jax.Array:
  points_S = jnp.asarray(centres(count, low, high))
  return x.astype(jnp.float32)[..., None] - lead(points_S, x.ndim + 1)
