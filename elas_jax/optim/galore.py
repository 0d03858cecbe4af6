"""GaLore: Adam whose moments live in a low-rank subspace of the gradient."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from elas_jax.optim.adam import scale_by_early_epsilon_adam


class GaloreState(NamedTuple):
  count: jax.Array
  projection: Any  # like the parameters; MaskedNode where nothing is projected
  adam: optax.ScaleByAdamState


def scale_by_galore(
  *,
  b1: float,
  b2: float,
  epsilon: float,
  rank: int,
  every: int,
  scale: float,
  projected: Any | Callable[[Any], Any],
) -> optax.GradientTransformation:
  """Adam's directions, from gradients projected to rank R (GaLore, arXiv 2403.03507).

    P   = the R first singular vectors of G on its shorter side, at steps 0, every, ...
    G_R = P^T G where I <= O, else G P
    d   = Adam's direction of G_R; epsilon comes before the bias correction: adam.py
    direction = scale P d, or scale d P^T

  for kernels (..., I, O), leading axes independent; G_R, m and v are (..., R, O) or
  (..., I, R). R is at most the shorter side. The moments stay when P changes. Published:
  every 200, scale 0.25. The other parameters get Adam's plain direction.

  `projected` is a tree of bools, or a function from parameters to one; leaves with fewer
  than two axes are never projected. Weight decay and -lr follow in a chain.
  """
  adam = scale_by_early_epsilon_adam(b1, b2, epsilon)

  def init(params: Any) -> GaloreState:
    mask = projected(params) if callable(projected) else projected
    projection = jax.tree.map(
      lambda p, chosen: (
        _zero_projection(p, rank) if chosen and p.ndim >= 2 else optax.MaskedNode()
      ),
      params,
      mask,
    )
    low = jax.tree.map(_down, params, projection)  # for its shapes
    return GaloreState(jnp.zeros((), jnp.int32), projection, adam.init(low))

  def update(grads: Any, state: GaloreState, params: Any = None) -> tuple[Any, GaloreState]:
    del params
    renew = state.count % every == 0

    def subspace(grad, old):
      if isinstance(old, optax.MaskedNode):
        return old
      return jax.lax.cond(renew, lambda: _subspace(grad, rank), lambda: old)

    projection = jax.tree.map(subspace, grads, state.projection)
    low = jax.tree.map(_down, grads, projection)
    directions, moments = adam.update(low, state.adam)
    # Over the gradients first, whose leaves are leaves; a projection may be a MaskedNode.
    updates = jax.tree.map(
      lambda grad, d, p: _up(grad, d, p, scale), grads, directions, projection
    )
    return updates, GaloreState(state.count + 1, projection, moments)

  return optax.GradientTransformation(init, update)


def _from_left(x: jax.Array) -> bool:
  """Whether P multiplies from the left. A square kernel is projected on its input side,
  as in the published code, whose weights are (O, I)."""
  return x.shape[-2] <= x.shape[-1]


def _zero_projection(x: jax.Array, rank: int) -> jax.Array:
  short = min(x.shape[-2:])
  return jnp.zeros((*x.shape[:-2], short, min(rank, short)), x.dtype)


def _subspace(grad: jax.Array, rank: int) -> jax.Array:
  u, _, vt = jnp.linalg.svd(grad, full_matrices=False)
  return u[..., :rank] if _from_left(grad) else vt[..., :rank, :].mT


def _down(grad: jax.Array, projection: Any) -> jax.Array:
  if isinstance(projection, optax.MaskedNode):
    return grad
  return projection.mT @ grad if _from_left(grad) else grad @ projection


def _up(grad: jax.Array, low: jax.Array, projection: Any, scale: float) -> jax.Array:
  if isinstance(projection, optax.MaskedNode):
    return low
  return scale * (projection @ low if _from_left(grad) else low @ projection.mT)
