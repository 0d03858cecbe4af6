"""A vision transformer (arXiv 2010.11929): patches, layers, the mean over positions.

  patches -> + position -> depth layers (systems/layers.py) -> norm -> mean -> dense
          -> outputs

The layers are a decoder's without the causal mask; of the linear kind of the model are all
of their maps, or those of feed-forwards alone, as KAT has it (arXiv 2409.10594). Patches
and the last dense layer are plain. Where the paper has a class token there is a mean.
On sequences, images of (H, 1, C), patches are patch x 1.
"""

import dataclasses
import math
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from elas_jax.common.errors import UserError
from elas_jax.common.fields import at_least, divides
from elas_jax.common.limits import check_array
from elas_jax.systems.activations import ACTIVATIONS
from elas_jax.systems.architectures.common import (
  CONVOLUTION,
  DENSE,
  Network,
  check_images,
  window,
)
from elas_jax.systems.feed_forwards import FEED_FORWARDS
from elas_jax.systems.kinds import Map, name_of, section
from elas_jax.systems.layers import Layer, Owners, Stack
from elas_jax.systems.linears import LINEARS
from elas_jax.systems.mixers import MIXERS
from elas_jax.systems.positions import POSITIONS


@dataclasses.dataclass(frozen=True)
class VisionTransformer:
  patch: int = 4  # side of a patch, a divisor of H and W. The default is ours
  attention: Any = section(MIXERS, 'mha')  # what mixes positions in each layer
  # Of each layer.
  feed_forward: Any = section(FEED_FORWARDS, 'mlp', activation=ACTIVATIONS['gelu']())
  position: Any = section(POSITIONS, 'learned', length=0)  # how patches are told positions
  expansion: int = 4  # F / D, the width between the maps of a feed-forward
  linear_in: Literal['all', 'feed_forward'] = 'all'  # the maps of the linear kind
  attention_bias: bool = True  # of the maps of attention, whatever model.use_bias

  def check(self, where: str, config: Any) -> None:
    model = config.model
    at_least(1, where, self, 'patch expansion')
    check_images(where, 'vit', model)
    for patch, side in zip(window(model, self.patch), model.input_shape):
      divides(f'{where}.patch', patch, 'a side of model.input_shape', side)
    check_array(
      ('the layers', model.depth), ('model.width', model.width), self.hidden(model)
    )
    if not isinstance(model.activation, ACTIVATIONS['none']):
      raise UserError(
        f'model.activation={name_of(ACTIVATIONS, model.activation)!r}: must be '
        f"'none' with {where}='vit'; that of its feed-forward is "
        f'{where}.feed_forward.activation'
      )

  def make(self, model: Any, train: bool, name: str) -> nn.Module:
    return Module(model, train, name=name)

  def stack(self, model: Any) -> Stack:
    (h, w), (H, W, _) = window(model, self.patch), model.input_shape
    parts = dataclasses.replace(
      model.parts,
      hidden=self.expansion * model.width,
      position=self.position,
      length=(H // h) * (W // w),
    )
    of_attention = dataclasses.replace(
      parts,
      linear=model.linear if self.linear_in == 'all' else LINEARS['dense'](),
      init='lecun_normal',
      use_bias=self.attention_bias,
    )
    layer = Layer(self.attention, self.feed_forward)
    return Stack((layer,), model.depth, parts, of_attention, unroll=model.depth)

  def owners(self, model: Any) -> Owners:
    D, stack = model.width, self.stack(model)
    entries = math.prod(window(model, self.patch)) * model.input_shape[-1]
    found: Owners = {
      'patches': (CONVOLUTION, Map(entries, D, 'out', stack.parts.length)),
      'position': (self.position, None),
      'norm_head': (model.norm, None),
      'head': (DENSE, Map(D, model.outputs, 'in')),
    }
    return found | {f'layers/{path}': owner for path, owner in stack.owners().items()}

  def hidden(self, model: Any) -> tuple[str, int]:
    return f'{self.expansion} model.width', self.expansion * model.width

  def input_widths(self, model: Any) -> dict[str, int]:
    return {'model.width': model.width} | dict([self.hidden(model)])

  widths = input_widths

  def kept(self, model: Any) -> int:
    return model.depth * model.width * self.stack(model).parts.length


class Module(Network):
  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    c, kind, stack = self.model, self.model.architecture, self.model.stack
    sides = window(c, kind.patch)
    x = nn.Conv(c.width, sides, sides, padding='VALID', name='patches')(x)
    x_BxLxD = x.reshape(len(x), -1, c.width)
    positions_L = jnp.arange(x_BxLxD.shape[1])
    x_BxLxD = kind.position.make(stack.parts, name='position')(x_BxLxD, positions_L)
    layers = stack.make(self.train, name='layers')
    x_BxLxD, _ = layers(x_BxLxD, None, stack.angles(positions_L), 0, None)
    x_BxD = self.norm('norm_head')(x_BxLxD).mean(1)
    return nn.Dense(c.outputs, name='head')(x_BxD)


SMALL = MIXERS['mha'](heads=2)
CASES = (
  VisionTransformer(patch=2, attention=SMALL),
  VisionTransformer(attention=MIXERS['mha'](1), linear_in='feed_forward', expansion=2),
)
