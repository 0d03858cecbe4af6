"""Images -> depth x [ 3 x 3 layer -> norm -> activation ] -> mean over positions -> dense.

Strides of 2 but for the first layer; the last dense layer is a plain one.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax

from elas_jax.systems.architectures.common import (
  DENSE,
  Network,
  Owners,
  check_convolution,
  check_images,
)


@dataclasses.dataclass(frozen=True)
class ConvNet:
  def check(self, where: str, config: Any) -> None:
    check_images(where, 'convnet', config.model)
    check_convolution(where, 'convnet', config.model)

  def make(self, model: Any, train: bool, name: str) -> nn.Module:
    return Module(model, train, name=name)

  def owners(self, model: Any) -> Owners:
    owners: Owners = {'head': DENSE}
    for number in range(model.depth):
      owners[f'layer_{number}'] = model.linear
      owners[f'norm_{number}'] = model.norm
      owners[f'activation_{number}'] = model.activation
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
