"""Adam whose moments live in a subspace of the gradients (GaLore, arXiv 2403.03507).

  P   = the R first singular vectors of G on its shorter side, at steps 0, every, ...
  G_R = P^T G where I <= O, else G P
  d   = Adam's direction of G_R; epsilon comes before the bias correction, as published:
        ops/early_epsilon_adam.py
  W  -= lr(step) (scale P d, or scale d P^T, + weight_decay W)

for the kernels (..., I, O) of linear maps, leading axes independent; G_R, m and v are
(..., R, O) or (..., I, R). R is at most the shorter side. The moments stay when P changes.
The other parameters get Adam's plain direction. Weight decay is times the factor that the
parameter's path has.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from elas_jax.common.errors import UserError
from elas_jax.common.fields import above, at_least
from elas_jax.common.paths import match, names
from elas_jax.ops.early_epsilon_adam import scale_by_early_epsilon_adam
from elas_jax.systems.kinds import Training, kernels, name_of, phase
from elas_jax.systems.linears import LINEARS
from elas_jax.systems.optimizers.common import (
  Common,
  check_averages,
  check_decoder,
)


@dataclasses.dataclass(frozen=True)
class Galore(Common):
  learning_rate: float = 0.01  # the peak; published, but 0.005 at 7B
  b1: float = 0.9  # of the first moment
  b2: float = 0.999  # of the second moment
  epsilon: float = 1e-6  # added before the bias correction
  weight_decay: float = 0.0  # times the learning rate
  rank: int = 128  # R, of the projected gradients; published for 60M, 256 for 130M
  every: int = phase(200)  # steps between new subspaces
  scale: float = 0.25  # factor of the learning rate for projected gradients

  def check(self, where: str, config: Any) -> None:
    super().check(where, config)
    check_averages(where, self, 'b1 b2')
    above(0, where, self, 'epsilon')
    self.check_decay(where)
    at_least(1, where, self, 'rank every')
    at_least(0, where, self, 'scale')
    check_decoder(where, config, 'galore')
    if kernels(config.model.linear) != 1:
      raise UserError(
        f"{where}='galore': needs a model.linear with one kernel, as 'dense' has, not "
        f'{name_of(LINEARS, config.model.linear)!r}, whose gradients are small already'
      )

  def build(self, training: Training) -> optax.GradientTransformation:
    directions = scale_by_galore(
      b1=self.b1,
      b2=self.b2,
      epsilon=self.epsilon,
      rank=self.rank,
      every=self.every,
      scale=self.scale,
      projected=match(training.params, PROJECTED, 'galore'),
    )
    return training.descend(directions, self.weight_decay)


# By path, whether a parameter's gradients are projected.
PROJECTED = (('/kernel$', True), ('', False))


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
  """Adam's directions, from gradients projected to rank R, as the module says.

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


# Epsilon and decay so large that they show.
CASES = (
  Galore(b1=0.0, rank=2, every=2, epsilon=0.1, weight_decay=0.5),
  Galore(rank=3, epsilon=0.1),
  Galore(rank=100),  # all that there is
)


def truth(kind: Galore, params: Any, gradients: list, rates: list[float]) -> Any:
  """Determined where b1 is 0 or P never changes: the signs of singular vectors are free,
  and m, which stays when P changes, depends on them; v does not."""
  paths, (values, tree) = names(params), jax.tree.flatten(params)
  moments, sides = [(0.0, 0.0)] * len(paths), {}
  for t, (gradient, rate) in enumerate(zip(gradients, rates), 1):
    for i, g in enumerate(jax.tree.leaves(gradient(tree.unflatten(values)))):
      if paths[i].endswith('/kernel') and (t - 1) % kind.every == 0:
        sides[i] = _true_sides(g, kind.rank)
      if i in sides:
        left, right = sides[i]
        g = np.swapaxes(left, -1, -2) @ g @ right
      m, v = moments[i]
      m, v = kind.b1 * m + (1 - kind.b1) * g, kind.b2 * v + (1 - kind.b2) * g**2
      moments[i] = m, v
      factor = np.sqrt(1 - kind.b2**t) / (1 - kind.b1**t)
      d = factor * m / (np.sqrt(v) + kind.epsilon)
      if i in sides:
        d = kind.scale * left @ d @ np.swapaxes(right, -1, -2)
      values[i] = values[i] - rate * (d + kind.weight_decay * values[i])
  return tree.unflatten(values)


def _true_sides(g: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
  """P on the shorter side, the left one of a square, and the identity on the other."""
  rows, columns = g.shape[-2:]
  u, _, vt = np.linalg.svd(g, full_matrices=False)
  if rows <= columns:
    return u[..., :rank], np.eye(columns)
  return np.eye(rows), np.swapaxes(vt, -1, -2)[..., :rank]
