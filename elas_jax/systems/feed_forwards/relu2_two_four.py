"""down(prune(relu(up(x))^2)): squared ReLU pruned to 2:4 (ELAS, arXiv 2605.03667).

x (B, L, D), up(x) (B, L, F), of each four features two are kept. For linear maps that are
plain products of their kernels, since the operation works on these. What is saved for the
backward pass and what that is stands in ops/two_four.py.
"""

import dataclasses
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from elas_jax.common.errors import UserError
from elas_jax.common.fields import at_least
from elas_jax.common.limits import quoted
from elas_jax.ops.activation import squared_relu
from elas_jax.ops.linear import chain
from elas_jax.ops.live_rows import chain_of_live
from elas_jax.ops.two_four import (
  HAVE_KERNELS,
  described,
  pruned_activations,
  sparse_feed_forward,
  two_four_feed_forward,
  without_kernels,
)
from elas_jax.systems import kinds
from elas_jax.systems.feed_forwards.mlp import MLP
from elas_jax.systems.kinds import Map, Parts, free, phase, room, section
from elas_jax.systems.linears import LINEARS
from elas_jax.systems.sown import above, sow, thresholds_of
from elas_jax.systems.two_four import RECIPES


@dataclasses.dataclass(frozen=True)
class TwoFourSquaredReLU:
  recipe: Any = section(RECIPES, 'top2')  # how to prune, and how to go back
  dense_steps: int = phase(0.1)  # the first steps, without pruning; published 1000 of 10000
  pruned_steps: int = phase(0)  # steps with pruning after those; then dense again; 0 = all
  # Of the 2:4 products: 'mosaic', the kernels, or an error where one cannot run; 'xla',
  # dense; 'auto', the kernels on the kinds of device that they were checked on.
  implementation: Literal['auto', 'xla', 'mosaic'] = free('auto')

  def check(self, where: str, config: Any) -> None:
    model, steps = config.model, config.train.steps
    at_least(0, where, self, 'dense_steps pruned_steps')
    if self.dense_steps >= steps:
      raise UserError(
        f'{where}.dense_steps={self.dense_steps}: must be below train.steps={steps}, or '
        'nothing is ever pruned; 0 prunes from the first step'
      )
    if self.pruned_steps >= steps - self.dense_steps:
      raise UserError(
        f'{where}.pruned_steps={self.pruned_steps}: must be below train.steps less '
        f'{where}.dense_steps, {steps - self.dense_steps}; 0 prunes to the end'
      )
    if not kinds.kernels(model.linear):
      accepted = [name for name, kind in LINEARS.items() if kinds.kernels(kind())]
      raise UserError(
        f'model.linear={kinds.name_of(LINEARS, model.linear)!r}: must be one of '
        f'{quoted(accepted)} with a 2:4 {where}, which works on the kernels of plain '
        'products'
      )
    if model.parts.use_bias:
      raise UserError(
        f'model.use_bias=True: must be False with a 2:4 {where}, which has no biases'
      )
    name, width = model.hidden
    if width % 4:
      raise UserError(f'{name}={width}: must be a multiple of 4 with a 2:4 {where}')
    self._check_implementation(where, config)

  def _check_implementation(self, where: str, config: Any) -> None:
    """Refuses 'mosaic' where a 2:4 operation would run elsewhere."""
    if self.implementation != 'mosaic':
      return
    field = f"{where}.implementation='mosaic'"
    dtype = config.model.parts.compute_dtype
    if dtype != 'bfloat16':
      raise UserError(f"{field}: needs model.compute_dtype='bfloat16', not {dtype!r}")
    recipe = self.recipe.build(config.length, self.implementation)
    lacking = without_kernels(recipe.rule, recipe.backward)
    if lacking:
      raise UserError(
        f"{field}: {lacking}; accepted are {where}.recipe='top2' with {where}.recipe."
        f"backward {' or '.join(map(repr, HAVE_KERNELS))}; 'auto' takes kernels where "
        'there are some'
      )

  def make(self, parts: Parts, name: str) -> nn.Module:
    return Module(self, parts, name=name)

  def maps(self, parts: Parts) -> dict[str, Map]:
    return MLP().maps(parts)

  def at_step(self, step: int) -> Any:
    """The unpruned layer in the dense phases; its parameters are the same."""
    warm_up = 0 < self.dense_steps >= step
    return MLP() if warm_up or self._ended(step - 1) else self

  def _ended(self, step: int) -> bool:
    """Whether after this step nothing is pruned any more."""
    return 0 < self.pruned_steps <= step - self.dense_steps

  def after(self, step: int) -> Any:
    """With what is left of the phases."""
    if self._ended(step):
      return MLP()
    dense = max(self.dense_steps - step, 0)
    done = max(step - self.dense_steps, 0)  # of the steps with pruning
    pruned = self.pruned_steps and self.pruned_steps - done
    return dataclasses.replace(self, dense_steps=dense, pruned_steps=pruned)

  def probed(self) -> bool:
    return True

  def zeros(self) -> bool:
    return True

  def notes(self, parts: Parts, length: int) -> list[str]:
    """What its products run on, here."""
    recipe = self.recipe.build(length, self.implementation)
    where = described(recipe, parts.compute_dtype, jax.device_count())
    return [f'2:4 products: {where}']


class Module(nn.Module):
  kind: TwoFourSquaredReLU
  parts: Parts

  @nn.compact
  def __call__(self, x_BxLxD: jax.Array) -> jax.Array:
    kind, parts, linear = self.kind, self.parts, self.parts.linear
    x_TxD = x_BxLxD.reshape(-1, parts.width)
    first = dataclasses.replace(parts, opening=True)
    up = linear.make(parts.hidden, first, name='up').kernels(parts.width)
    down = linear.make(parts.width, parts, name='down').kernels(parts.hidden)
    # Where parameters are made nothing reads the result: no kernel need be built for it.
    which = 'xla' if self.is_initializing() else kind.implementation
    recipe = kind.recipe.build(x_BxLxD.shape[1], which)
    given = kind.recipe.given(self, x_TxD, up, down)
    y_TxF = lambda: squared_relu(chain(x_TxD, up))
    sow(self, 'activation', y_TxF)
    thresholds_F = thresholds_of(self, parts.hidden)
    if thresholds_F is not None:  # the squared ReLU of its root is what is left of y
      root_TxF = jnp.sqrt(above(y_TxF(), thresholds_F))
      y_TxD = sparse_feed_forward(recipe, root_TxF, (), down, **given)
    elif parts.skip_zeros and len(x_TxD) == 1:
      z_1xF = pruned_activations(recipe, chain(x_TxD, up), **given)
      y_TxD = chain_of_live(z_1xF, down)
    else:
      y_TxD = two_four_feed_forward(recipe, x_TxD, up, down, **given)
    return y_TxD.reshape(x_BxLxD.shape)


def AXES(kind: TwoFourSquaredReLU) -> kinds.Axes:
  """Of the recipe's buffers, which are this module's."""
  return kinds.axes(kind.recipe)


CASES = tuple(
  TwoFourSquaredReLU(recipe, dense_steps=0)
  for name in RECIPES
  for recipe in room(RECIPES[name]).CASES
)


def truth(kind: TwoFourSquaredReLU, x: np.ndarray, p: dict, linear: Any) -> Any:
  """None for rules that draw at random."""
  rule = room(kind.recipe)
  if not hasattr(rule, 'prune'):
    return None
  y = np.maximum(linear(x, p['up']), 0) ** 2
  return linear(rule.prune(kind.recipe, y, p), p['down'])
