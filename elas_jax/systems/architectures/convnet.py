"""Images -> depth x [ 3 x 3 layer -> norm -> activation ] -> mean over positions -> dense.

Strides of 2 but for the first layer; the last dense layer is a plain one. On sequences,
images of (H, 1, C), kernels are 3 x 1.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax

from elas_jax.systems.architectures.common import (
  DENSE,
  Network,
  check_convolution,
  check_images,
  entries,
  positions,
)
from elas_jax.systems.kinds import Map
from elas_jax.systems.layers import Owners


@dataclasses.dataclass(frozen=True)
class ConvNet:
  def check(self, where: str, config: Any) -> None:
    check_images(where, 'convnet', config.model)
    check_convolution(where, 'convnet', config.model)

  def make(self, model: Any, train: bool, name: str) -> nn.Module:
    return Module(model, train, name=name)

  def owners(self, model: Any) -> Owners:
    D = model.width
    owners: Owners = {'head': (DENSE, Map(D, model.outputs, 'in'))}
    for number in range(model.depth):
      inputs = entries(model, D if number else model.input_shape[-1])
      one = Map(inputs, D, 'out', positions(model, number))
      owners[f'layer_{number}'] = model.linear, one
      owners[f'norm_{number}'] = model.norm, None
      owners[f'activation_{number}'] = model.activation, None
    return owners

  def input_widths(self, model: Any) -> dict[str, int]:
    return {'model.width': model.width}

  widths = input_widths


class Module(Network):
  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    c = self.model
    for number in range(c.depth):
      x = self.convolution(c.width, 2 if number else 1, f'layer_{number}')(x)
      x = self.norm(f'norm_{number}')(x)
      x = self.activation(f'activation_{number}')(x)
    return nn.Dense(c.outputs, name='head')(x.mean((1, 2)))


CASES = (ConvNet(),)
