"""New knots of B-splines, finer or where the inputs are (KAN, arXiv 2404.19756, 2.4).

A finer grid, or as many intervals where the inputs of each layer are; rows of the train
split show them. A finer one either subdivides the old one, which keeps the curves inside
its range, or goes where the samples are: for each input what changes its curves less at
the samples.
"""

import dataclasses
import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from elas_jax.common.errors import UserError
from elas_jax.common.fields import at_least
from elas_jax.ops.kan.bspline import bspline_basis, extend_grid, update_grid
from elas_jax.systems.converters.common import Given, span, with_model
from elas_jax.systems.kinds import name_of
from elas_jax.systems.linears import LINEARS
from elas_jax.systems.linears.kan_bspline import BSpline

SAMPLES = 4096  # units that are asked for, and about as many inputs that a layer shows
PASS = 256  # rows of one pass


@dataclasses.dataclass(frozen=True)
class ExtendGrid:
  grid: int = 0  # intervals of an input, more than there are; 0: as many, moved

  equal: ClassVar[bool] = False

  def check(self, where: str, config: Any) -> None:
    at_least(0, where, self, 'grid')
    linear = config.model.linear
    if not isinstance(linear, BSpline):
      name = name_of(LINEARS, linear)
      raise UserError(f"model.linear={name!r}: must be 'kan_bspline' to be given new knots")
    if self.grid and self.grid <= linear.grid:
      raise UserError(
        f'{where}.grid={self.grid}: must be larger than model.linear.grid={linear.grid} of '
        'the run, or 0, which moves its knots'
      )

  def convert(self, given: Given) -> tuple[Any, dict[str, Any]]:
    linear = given.config.model.linear
    grid = self.grid or linear.grid
    config = with_model(given.config, linear=dataclasses.replace(linear, grid=grid))
    given.check(config)
    flat = flatten_dict(given.variables, sep='/')
    for layer, x_PxI in samples(given).items():
      names = f'params/{layer}/coefficients', f'buffers/{layer}/knots'
      c, knots = old = [flat[name] for name in names]
      new = new_grid(x_PxI, *old, order=linear.order, grid=grid)
      if not jnp.isfinite(new[0]).all():
        raise UserError(f'{layer}: no knots fit between its inputs, {span(x_PxI)}')
      flat |= zip(names, new)
      inner = (..., slice(linear.order, -linear.order))
      before, now = (span(array[inner]) for array in (knots, new[1]))
      given.say(f'{layer}: grid {linear.grid} over {before} -> {grid} over {now}')
    return config, unflatten_dict(flat, sep='/')


def samples(given: Given) -> dict[str, jax.Array]:
  """By the path of each B-spline layer what it gets, (..., P, I), stacked as it is."""
  rows, found = given.rows(SAMPLES), {}
  count = len(next(iter(rows.values())))
  starts = range(0, count, PASS)
  for start in starts:
    part = {name: x[start : start + PASS] for name, x in rows.items()}
    _, sown = given.outputs(given.config, given.variables, part, ('inputs',))
    for layer, x in sown['inputs'].items():
      every = -(-x.shape[-2] * len(starts) // SAMPLES)
      found.setdefault(layer, []).append(x[..., ::every, :])
  return {layer: jnp.concatenate(parts, axis=-2) for layer, parts in found.items()}


@functools.partial(jax.jit, static_argnames=('order', 'grid'))
def new_grid(x_PxI: jax.Array, c_IxSxO, knots_IxM, *, order: int, grid: int):
  """(coefficients, knots) of `grid` intervals, one input after the other.

  All three may have the same axes before these.
  """
  extra = grid + order - c_IxSxO.shape[-2]
  pad = (0, 0), (extra // 2, extra - extra // 2)  # intervals where the curves are zero

  def of_input(part):
    x_Px1, c, knots = part
    wide = jnp.pad(c, (*pad, (0, 0))), jnp.pad(knots, pad, 'reflect', reflect_type='odd')
    moved = update_grid(x_Px1, *wide, order)
    if not extra:
      return moved
    values = lambda c, knots: jnp.tensordot(bspline_basis(x_Px1, knots, order), c, 2)
    change = lambda new: jnp.square(values(*new) - values(c, knots)).sum()
    finer = extend_grid(c, knots, order, grid)
    better = functools.partial(jnp.where, change(moved) < change(finer))
    return jax.tree.map(better, moved, finer)

  alone = lambda array, tail: array.reshape(-1, *tail)
  P, (S, O), M = x_PxI.shape[-2], c_IxSxO.shape[-2:], knots_IxM.shape[-1]
  inputs = (
    alone(x_PxI.swapaxes(-1, -2), (P, 1)),
    alone(c_IxSxO, (1, S, O)),
    alone(knots_IxM, (1, M)),
  )
  c, knots = jax.lax.map(of_input, inputs)
  before = knots_IxM.shape[:-1]
  return c.reshape(*before, *c.shape[2:]), knots.reshape(*before, -1)


CASES = (ExtendGrid(), ExtendGrid(grid=8))
# No truth: the fit is compared with NumPy's in tests/systems/converters.
