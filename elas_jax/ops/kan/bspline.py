"""B-spline KAN: the basis, the layer's map, and its changes of grid.

KAN (Liu et al., arXiv 2404.19756) in the form of EfficientKAN, which evaluates the basis
once for all outputs. Knots are kept per input, (I, M) with M = grid + 2 order + 1: those
of the range and `order` more on either side. S = grid + order.
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elas_jax.ops.kan.base import base_branch, lead, mix, per_input

# How much the new knots follow an even spacing rather than the samples' quantiles, and how
# far an even spacing reaches beyond the samples (EfficientKAN's values).
EVEN_SHARE = 0.02
MARGIN = 0.01


def uniform_knots(inputs: int, grid: int, order: int, low: float, high: float) -> jax.Array:
  """Evenly spaced knots of `grid` intervals over [low, high], the same for each input."""
  step = (high - low) / grid
  knots_M = low + step * np.arange(-order, grid + order + 1)
  return jnp.broadcast_to(jnp.asarray(knots_M, jnp.float32), (inputs, len(knots_M)))


def bspline_basis(x: jax.Array, knots_IxM: jax.Array, order: int) -> jax.Array:
  """The S B-splines of that order at x, by the recursion of Cox and de Boor.

  Shapes (..., I) -> (..., I, S), float32. They sum to one inside the range; B_s is zero
  outside of [knot_s, knot_(s + order + 1)). No gradient goes to the knots.
  """
  return per_input(functools.partial(cox_de_boor, order=order), x, knots_IxM)


def cox_de_boor(x: jax.Array, knots_IxM: jax.Array, order: int) -> jax.Array:
  """What bspline_basis gives, of a float32 x, without its rule for the gradient.

  Every B_s has a table of its own, so that all steps are in vectors of S. Splines share
  most entries; to form these once takes slices of other lengths and is slower on a CPU.
  """
  x, t = x[..., None], lead(knots_IxM, x.ndim + 1)
  # Of each s, knot_s ... knot_(s + order + 1).
  knot = [t[..., j : j + t.shape[-1] - order - 1] for j in range(order + 2)]
  inside = ((x >= start) & (x < end) for start, end in itertools.pairwise(knot))
  table = [interval.astype(jnp.float32) for interval in inside]
  for k in range(1, order + 1):
    spans = list(zip(knot, knot[k:]))  # of the splines of order k - 1
    rising = [(x - start) / (end - start) for start, end in spans]
    falling = [(end - x) / (end - start) for start, end in spans]
    table = [
      rising[j] * table[j] + falling[j + 1] * table[j + 1] for j in range(len(table) - 1)
    ]
  return table[0]


def bspline(
  x: jax.Array,
  base_IxO: jax.Array,
  coefficients_IxSxO: jax.Array,
  scaler_IxO: jax.Array,
  knots_IxM: jax.Array,
  order: int,
  activation: Callable,
  dtype: Any,
) -> jax.Array:
  """Y = activation(x) W_b + sum over i, s of B_s(x_i) c_iso scaler_io; in float32."""
  scaled_IxSxO = coefficients_IxSxO * scaler_IxO[:, None, :]
  spline = mix(bspline_basis(x, knots_IxM, order), scaled_IxSxO, dtype)
  return base_branch(x, base_IxO, activation, dtype) + spline


def noise_start(
  key: jax.Array, shape: tuple[int, ...], dtype: Any, knots_IxM: jax.Array, order: int
) -> jax.Array:
  """Coefficients (I, S, O) of curves through noise at the knots of the range.

  Noise is uniform within +-0.05 / grid. All inputs must have the same knots.
  """
  I, S, O = shape
  grid = S - order
  noise_PxN = (jax.random.uniform(key, (grid + 1, I * O)) - 0.5) * 0.1 / grid
  points_Px1 = knots_IxM[:1, order : order + grid + 1].T
  basis_PxS = bspline_basis(points_Px1, knots_IxM[:1], order)[:, 0]
  fitted_SxN = _least_squares(basis_PxS, noise_PxN)
  return fitted_SxN.reshape(S, I, O).swapaxes(0, 1).astype(dtype)


def update_grid(
  samples_PxI: jax.Array, coefficients_IxSxO: jax.Array, knots_IxM: jax.Array, order: int
) -> tuple[jax.Array, jax.Array]:
  """Knots that follow the samples, and the coefficients of the same curves on them.

  New knots are the samples' quantiles, blended with an even spacing over their range;
  coefficients are the least-squares fit to the old curves at the samples: exact where the
  new splines can form the old ones, which is always so for a polynomial of that order.
  Samples are what the basis gets, after any data normalisation. Forms (P, I, O).
  """
  grid = coefficients_IxSxO.shape[1] - order
  samples_PxI = samples_PxI.astype(jnp.float32)
  low_1xI, high_1xI = (f(samples_PxI, 0, keepdims=True) for f in (jnp.min, jnp.max))
  quantiles_GxI = jnp.quantile(samples_PxI, jnp.linspace(0, 1, grid + 1), axis=0)
  share_Gx1 = jnp.linspace(0, 1, grid + 1)[:, None]
  even_GxI = low_1xI - MARGIN + share_Gx1 * (high_1xI - low_1xI + 2 * MARGIN)
  range_GxI = EVEN_SHARE * even_GxI + (1 - EVEN_SHARE) * quantiles_GxI
  knots = _with_borders(range_GxI.T, order)
  return _refit(samples_PxI, coefficients_IxSxO, knots_IxM, knots, order), knots


def extend_grid(
  coefficients_IxSxO: jax.Array, knots_IxM: jax.Array, order: int, new_grid: int
) -> tuple[jax.Array, jax.Array]:
  """A finer grid of `new_grid` intervals on the same range, and the curves' coefficients.

  The old knots are subdivided. If new_grid is a multiple of the old one, they are among
  the new ones and each curve is kept inside the range; else this is its least-squares fit.
  Forms (P, I, O) with P = (order + 1) new_grid.
  """
  grid = coefficients_IxSxO.shape[1] - order
  range_IxG = knots_IxM[:, order : order + grid + 1].astype(jnp.float32)
  place = lambda at: jax.vmap(jnp.interp, (None, None, 0))(
    at, jnp.arange(grid + 1.0), range_IxG
  )
  knots = _with_borders(place(jnp.arange(new_grid + 1) * (grid / new_grid)), order)
  # As many points in every new interval as a polynomial of that order has coefficients.
  count = (order + 1) * new_grid
  points_PxI = place((jnp.arange(count) + 0.5) * (grid / count)).T
  return _refit(points_PxI, coefficients_IxSxO, knots_IxM, knots, order), knots


def _with_borders(range_IxG: jax.Array, order: int) -> jax.Array:
  """Knots of the range and `order` more on either side, evenly spaced."""
  count = range_IxG.shape[1] - 1
  step_Ix1 = (range_IxG[:, -1:] - range_IxG[:, :1]) / count
  away_1xK = jnp.arange(1.0, order + 1)[None]
  below = range_IxG[:, :1] - step_Ix1 * away_1xK[:, ::-1]
  return jnp.concatenate([below, range_IxG, range_IxG[:, -1:] + step_Ix1 * away_1xK], 1)


def _refit(
  points_PxI: jax.Array,
  coefficients_IxSxO: jax.Array,
  old_IxM: jax.Array,
  new_IxM: jax.Array,
  order: int,
) -> jax.Array:
  """The coefficients on the new knots that are nearest to the old curves at the points."""
  wide_IxSxO = coefficients_IxSxO.astype(jnp.float32)
  old_PxIxS = bspline_basis(points_PxI, old_IxM, order)
  values_IxPxO = jnp.einsum('pis,iso->ipo', old_PxIxS, wide_IxSxO, precision='highest')
  new_IxPxS = bspline_basis(points_PxI, new_IxM, order).swapaxes(0, 1)
  fitted = jax.vmap(_least_squares)(new_IxPxS, values_IxPxO)
  return fitted.astype(coefficients_IxSxO.dtype)


def _least_squares(basis_PxS: jax.Array, values_PxN: jax.Array) -> jax.Array:
  """Of the nearest fits the one of least norm, (S, N)."""
  return jnp.linalg.lstsq(basis_PxS, values_PxN)[0]
