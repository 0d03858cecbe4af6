"""The ResNet of 6 depth + 2 layers for CIFAR (arXiv 1512.03385).

Widths D, 2 D and 4 D in three stages of `depth` blocks, shortcuts without parameters. The
first convolution and the last dense layer are plain, as published for quadratic ones (arXiv
2110.06081). On sequences, images of (H, 1, C), kernels are 3 x 1.
"""

import dataclasses
import itertools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from elas_jax.systems.architectures.common import (
  CONVOLUTION,
  DENSE,
  Network,
  check_convolution,
  check_images,
  entries,
  plain_convolution,
  positions,
)
from elas_jax.systems.kinds import Map
from elas_jax.systems.layers import Owners

STAGES = 3


@dataclasses.dataclass(frozen=True)
class ResNet:
  def check(self, where: str, config: Any) -> None:
    check_images(where, 'resnet', config.model)
    check_convolution(where, 'resnet', config.model)

  def make(self, model: Any, train: bool, name: str) -> nn.Module:
    return Module(model, train, name=name)

  def owners(self, model: Any) -> Owners:
    D, last = model.width, model.width << (STAGES - 1)
    stem = Map(entries(model, model.input_shape[-1]), D, 'out', positions(model))
    owners: Owners = {
      'stem': (CONVOLUTION, stem),
      'norm_stem': (model.norm, None),
      'activation_stem': (model.activation, None),
      'head': (DENSE, Map(last, model.outputs, 'in')),
    }
    blocks = itertools.product(range(STAGES), range(model.depth), ('first', 'second'))
    for stage, block, which in blocks:
      where, width = f'{which}_{stage}_{block}', D << stage
      narrow = stage and not block and which == 'first'
      inputs, split = width // 2 if narrow else width, 'out' if which == 'first' else 'in'
      one = Map(entries(model, inputs), width, split, positions(model, stage))
      owners[where] = model.linear, one
      owners[f'norm_{where}'] = model.norm, None
      owners[f'activation_{where}'] = model.activation, None
    return owners

  def input_widths(self, model: Any) -> dict[str, int]:
    return {'model.width': model.width}

  widths = input_widths


class Module(Network):
  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    c = self.model
    x = plain_convolution(c, c.width, 'stem')(x)
    x = self.activation('activation_stem')(self.norm('norm_stem')(x))
    for stage, block in itertools.product(range(STAGES), range(c.depth)):
      stride = 2 if stage and not block else 1
      x = self.block(x, c.width << stage, stride, f'{stage}_{block}')
    return nn.Dense(c.outputs, name='head')(x.mean((1, 2)))

  def block(self, x: jax.Array, width: int, stride: int, where: str) -> jax.Array:
    """act(x + norm(layer(act(norm(layer(x)))))); the shortcut skips and pads channels."""
    y = self.convolution(width, stride, f'first_{where}')(x)
    y = self.activation(f'activation_first_{where}')(self.norm(f'norm_first_{where}')(y))
    y = self.convolution(width, 1, f'second_{where}')(y)
    y = self.norm(f'norm_second_{where}')(y)
    missing = width - x.shape[-1]
    shortcut = jnp.pad(
      x[:, ::stride, ::stride],
      ((0, 0), (0, 0), (0, 0), (missing // 2, missing - missing // 2)),
    )
    return self.activation(f'activation_second_{where}')(y + shortcut)


CASES = (ResNet(),)
