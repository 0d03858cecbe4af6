"""Rows of any shape -> depth x [ norm -> layer -> activation ] -> norm -> layer.

The last layer, which gives the outputs, is of the same linear kind.
"""

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax

from elas_jax.common.fields import at_least
from elas_jax.systems.architectures.common import Network
from elas_jax.systems.kinds import Map
from elas_jax.systems.layers import Owners


@dataclasses.dataclass(frozen=True)
class Stack:
  def check(self, where: str, config: Any) -> None:
    at_least(0, 'model', config.model, 'depth')

  def make(self, model: Any, train: bool, name: str) -> nn.Module:
    return Module(model, train, name=name)

  def owners(self, model: Any) -> Owners:
    D, widths = model.width, [math.prod(model.input_shape), *[model.width] * model.depth]
    owners: Owners = {
      'norm_head': (model.norm, None),
      'head': (model.linear, Map(widths[-1], model.outputs, 'in')),
    }
    for number in range(model.depth):
      owners[f'norm_{number}'] = model.norm, None
      owners[f'layer_{number}'] = model.linear, Map(widths[number], D, 'out')
      owners[f'activation_{number}'] = model.activation, None
    return owners

  def input_widths(self, model: Any) -> dict[str, int]:
    entries = {'the entries of model.input_shape': math.prod(model.input_shape)}
    return entries | ({'model.width': model.width} if model.depth else {})

  def widths(self, model: Any) -> dict[str, int]:
    return self.input_widths(model) | {'model.outputs': model.outputs}

  def kept(self, model: Any) -> int:
    return model.depth * model.width


class Module(Network):
  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    c, x = self.model, x.reshape(len(x), -1)
    for number in range(c.depth):
      x = self.norm(f'norm_{number}')(x)
      x = self.linear(c.width, f'layer_{number}')(x)
      x = self.activation(f'activation_{number}')(x)
    return self.linear(c.outputs, 'head')(self.norm('norm_head')(x))


CASES = (Stack(),)
