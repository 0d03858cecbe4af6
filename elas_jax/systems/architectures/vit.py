"""A vision transformer (arXiv 2010.11929): patches, attention, the mean over positions.

  patches -> depth x [ x + attention(norm(x)); x + feed_forward(norm(x)) ] -> norm -> mean
          -> dense -> outputs

feed_forward is down(act(up(norm(x)))) of width 4 D, both maps of the model's linear kind;
patches, attention and the last dense layer are plain.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax

from elas_jax.common.fields import at_least, divides
from elas_jax.systems.architectures.common import (
  CONVOLUTION,
  DENSE,
  Network,
  Owners,
  check_images,
)
from elas_jax.systems.kinds import Axes


@dataclasses.dataclass(frozen=True)
class VisionTransformer:
  patch: int = 4  # side of a patch, a divisor of H and W. The default is ours
  heads: int = 4  # of the attention, a divisor of D. The default is ours

  def check(self, where: str, config: Any) -> None:
    model = config.model
    at_least(1, where, self, 'patch heads')
    check_images(where, 'vit', model)
    divides(f'{where}.heads', self.heads, 'model.width', model.width)
    for side in model.input_shape[:2]:
      divides(f'{where}.patch', self.patch, 'a side of model.input_shape', side)

  def make(self, model: Any, train: bool, name: str) -> nn.Module:
    return Module(model, train, name=name)

  def owners(self, model: Any) -> Owners:
    owners = {
      'patches': CONVOLUTION,
      'positions': {'': (None,) * 3},
      'norm_head': model.norm,
      'head': DENSE,
    }
    for number in range(model.depth):
      owners |= {
        f'norm_attention_{number}': model.norm,
        f'attention_{number}': ATTENTION,
        f'norm_feed_forward_{number}': model.norm,
        f'up_{number}': model.linear,
        f'activation_{number}': model.activation,
        f'down_{number}': model.linear,
      }
    return owners

  def input_widths(self, model: Any) -> dict[str, int]:
    return {'model.width': model.width, '4 model.width': 4 * model.width}

  widths = input_widths


# Of flax's layer, kernels (D, heads, K) and (heads, K, D).
ATTENTION: Axes = {
  f'{name}/{part}': (None,) * (3 if part == 'kernel' else 1 if name == 'out' else 2)
  for name in ('query', 'key', 'value', 'out')
  for part in ('kernel', 'bias')
}


class Module(Network):
  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    c, kind = self.model, self.model.architecture
    sides = (kind.patch, kind.patch)
    x = nn.Conv(c.width, sides, sides, padding='VALID', name='patches')(x)
    x_BxLxD = x.reshape(len(x), -1, c.width)
    shape = (1, x_BxLxD.shape[1], c.width)
    x_BxLxD += self.param('positions', nn.initializers.normal(0.02), shape)
    first = dataclasses.replace(c.parts, opening=True)
    for number in range(c.depth):
      norm = lambda what, number=number: self.norm(f'norm_{what}_{number}')
      attention = nn.MultiHeadDotProductAttention(kind.heads, name=f'attention_{number}')
      x_BxLxD += attention(norm('attention')(x_BxLxD))
      up = c.linear.make(4 * c.width, first, name=f'up_{number}')
      h = self.activation(f'activation_{number}')(up(norm('feed_forward')(x_BxLxD)))
      x_BxLxD += self.linear(c.width, f'down_{number}')(h)
    x_BxD = self.norm('norm_head')(x_BxLxD).mean(1)
    return nn.Dense(c.outputs, name='head')(x_BxD)


CASES = (VisionTransformer(patch=2, heads=2), VisionTransformer(patch=4, heads=1))
