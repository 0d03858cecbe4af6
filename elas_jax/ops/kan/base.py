"""What the Kolmogorov-Arnold families share: grids and the one product.

Every family maps (..., I) to a basis (..., I, S) in float32 and then to (..., O) by one
matrix product with I * S rows, so nothing has the size of a basis times the outputs.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elas_jax.ops.linear import dense


def per_input(basis: Callable, x: jax.Array, *constants: jax.Array) -> jax.Array:
  """basis(x, *constants), (..., I) -> (..., I, S), with its slope kept for the gradient.

  For a basis of which each value depends on its own x alone; constants get no gradient.
  Autodiff keeps what every operation of the formula needs, many arrays of the basis's
  size. Here the gradient keeps one, of the slopes.
  """

  @jax.custom_jvp
  def function(x, *constants):
    return basis(x, *constants)

  @function.defjvp
  def _(primals, tangents):
    x, *rest = primals
    values, slopes = jax.jvp(lambda x: basis(x, *rest), (x,), (jnp.ones_like(x),))
    return values, jax.lax.optimization_barrier(slopes) * tangents[0][..., None]

  return function(x.astype(jnp.float32), *constants)


def mix(basis: jax.Array, coefficients_IxSxO: jax.Array, dtype: Any) -> jax.Array:
  """Y_o = sum over i, s of basis_is c_iso: (..., I, S) and (I, S, O) -> (..., O).

  One product with (I * S, O), multiplied in `dtype`, accumulated and returned in float32.
  """
  # The product reads the basis from memory in any case. The barrier has XLA write it in
  # its own shape, in vectors of S; in that of the product it is slow on a CPU.
  basis = jax.lax.optimization_barrier(basis.astype(dtype))
  flat = basis.reshape(*basis.shape[:-2], -1)
  kernel_ISxO = coefficients_IxSxO.reshape(flat.shape[-1], -1).astype(dtype)
  return dense(flat, kernel_ISxO, jnp.float32)


def base_branch(
  x: jax.Array, kernel_IxO: jax.Array, activation: Callable, dtype: Any
) -> jax.Array:
  """Y = activation(x) W in float32, the part of a KAN that is an ordinary layer."""
  wide = activation(x.astype(jnp.float32))
  return dense(wide.astype(dtype), kernel_IxO.astype(dtype), jnp.float32)


def lead(array: jax.Array, ndim: int) -> jax.Array:
  """The array in float32, with axes of size 1 in front up to `ndim` of them."""
  return array.astype(jnp.float32).reshape((1,) * (ndim - array.ndim) + array.shape)


def centres(count: int, low: float, high: float) -> np.ndarray:
  """`count` evenly spaced points from low to high; one alone is in the middle. (S,)."""
  points_S = np.linspace(low, high, count) if count > 1 else np.array([(low + high) / 2])
  return points_S.astype(np.float32)


def overlapping_intervals(
  grid: int, order: int, low: float, high: float
) -> tuple[np.ndarray, np.ndarray]:
  """Starts s and ends e of S = grid + order intervals, each order + 1 steps wide.

  s = low + h (-order ... grid - 1) and e = s + (order + 1) h with h = (high - low) / grid:
  where the B-splines of that order live. ReLU-KAN and AF-KAN start from these.
  """
  step = (high - low) / grid
  starts_S = low + step * np.arange(-order, grid)
  return starts_S.astype(np.float32), (starts_S + (order + 1) * step).astype(np.float32)
