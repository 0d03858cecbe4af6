"""Networks on rows, for classes or values: stacks of layers, ConvNets, a transformer.

  stack     x -> depth x [ norm -> layer -> activation ] -> norm -> layer -> outputs
  convnet   images -> depth x [ 3 x 3 layer -> norm -> activation ] -> mean over positions
            -> dense -> outputs; strides of 2 but for the first
  resnet    the ResNet of 6 depth + 2 layers for CIFAR (arXiv 1512.03385): widths D, 2 D and
            4 D, shortcuts without parameters; the first convolution and the last dense
            layer are plain, as published for quadratic ones (arXiv 2110.06081)
  vit       patches -> depth x [ x + attention(norm(x)); x + feed_forward(norm(x)) ] -> mean
            (arXiv 2010.11929); feed_forward is of two layers of the kind

The kind of layer is config.layer, a name of LAYERS.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from elas_jax.config.config import NetworkConfig
from elas_jax.layers.kan import KANS, KanConv
from elas_jax.layers.norm import BatchNorm
from elas_jax.layers.quadratic import QuadraticConv, QuadraticDense
from elas_jax.layers.rational import GroupRationalDense
from elas_jax.ops.activation import squared_relu
from elas_jax.ops.linear import kaiming_uniform

ACTIVATIONS = {
  'none': lambda x: x,
  'relu': jax.nn.relu,
  'relu2': squared_relu,
  'gelu': jax.nn.gelu,
  'silu': jax.nn.silu,
}
LAYERS = ('dense', 'quadratic', 'rational', *KANS)
CONVOLUTIONS = ('dense', 'quadratic', *KANS)


def dense(
  config: NetworkConfig, features: int, name: str, preset: str = 'swish'
) -> nn.Module:
  """A layer of config.layer, (..., I) to (..., features); `preset` is where F_g starts."""
  kind = config.layer
  if kind in KANS:
    return KANS[kind](features, config.kan, name=name)
  if kind == 'rational':
    return GroupRationalDense(
      features, config.rational_groups, preset, use_bias=config.use_bias, name=name
    )
  if kind == 'quadratic':
    return QuadraticDense(
      features,
      config.quadratic_form,
      config.quadratic_start,
      config.use_bias,
      name=name,
    )
  init = nn.initializers.he_normal() if config.init == 'he' else kaiming_uniform
  return nn.Dense(features, config.use_bias, kernel_init=init, name=name)


def convolution(config: NetworkConfig, features: int, stride: int, name: str) -> nn.Module:
  """A 3 x 3 layer of config.layer on images, with zeros beyond the border."""
  if config.layer in KANS:
    return KanConv(features, config.kan, config.layer, 3, stride, name=name)
  if config.layer == 'quadratic':
    return QuadraticConv(
      features,
      stride=(stride, stride),
      padding=((1, 1), (1, 1)),
      form=config.quadratic_form,
      start=config.quadratic_start,
      use_bias=config.use_bias,
      name=name,
    )
  return plain_convolution(features, stride, config.use_bias, name)


def plain_convolution(features: int, stride: int, use_bias: bool, name: str) -> nn.Module:
  return nn.Conv(
    features,
    (3, 3),
    stride,
    padding=1,
    use_bias=use_bias,
    kernel_init=nn.initializers.he_normal(),
    name=name,
  )


class Network(nn.Module):
  """(B, ...) to (B, outputs); see above."""

  config: NetworkConfig

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    return ARCHITECTURES[self.config.architecture](self.config, train, name='network')(x)


class Part(nn.Module):
  config: NetworkConfig
  train: bool

  def norm(self, x: jax.Array, name: str) -> jax.Array:
    if self.config.norm == 'layer':
      return nn.LayerNorm(epsilon=1e-5, name=name)(x)
    if self.config.norm == 'batch':
      return BatchNorm(self.train, name=name)(x)
    return x

  @property
  def activation(self) -> Callable:
    return ACTIVATIONS[self.config.activation]


class Stack(Part):
  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    c, x = self.config, x.reshape(len(x), -1)
    for number in range(c.depth):
      x = self.norm(x, f'norm_{number}')
      x = self.activation(dense(c, c.width, f'layer_{number}')(x))
    return dense(c, c.outputs, 'head')(self.norm(x, 'norm_head'))


class ConvNet(Part):
  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    c = self.config
    for number in range(c.depth):
      layer = convolution(c, c.width, 2 if number else 1, f'layer_{number}')
      x = self.activation(self.norm(layer(x), f'norm_{number}'))
    return nn.Dense(c.outputs, name='head')(x.mean((1, 2)))


class ResNet(Part):
  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    c = self.config
    x = plain_convolution(c.width, 1, c.use_bias, 'stem')(x)
    x = self.activation(self.norm(x, 'norm_stem'))
    for stage in range(3):
      for block in range(c.depth):
        x = self.block(x, c.width << stage, 2 if stage and not block else 1, stage, block)
    return nn.Dense(c.outputs, name='head')(x.mean((1, 2)))

  def block(self, x: jax.Array, width: int, stride: int, *numbers: int) -> jax.Array:
    """act(x + norm(layer(act(norm(layer(x)))))); the shortcut skips and pads channels."""
    where = '_'.join(map(str, numbers))
    y = convolution(self.config, width, stride, f'first_{where}')(x)
    y = self.activation(self.norm(y, f'norm_first_{where}'))
    y = convolution(self.config, width, 1, f'second_{where}')(y)
    y = self.norm(y, f'norm_second_{where}')
    missing = width - x.shape[-1]
    shortcut = x[:, ::stride, ::stride]
    shortcut = jnp.pad(
      shortcut, ((0, 0), (0, 0), (0, 0), (missing // 2, missing - missing // 2))
    )
    return self.activation(y + shortcut)


class VisionTransformer(Part):
  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    c = self.config
    sides = (c.patch, c.patch)
    x = nn.Conv(c.width, sides, sides, padding='VALID', name='patches')(x)
    x_BxLxD = x.reshape(len(x), -1, c.width)
    shape = (1, x_BxLxD.shape[1], c.width)
    x_BxLxD += self.param('positions', nn.initializers.normal(0.02), shape)
    for number in range(c.depth):
      norm = lambda x, what, number=number: nn.LayerNorm(name=f'norm_{what}_{number}')(x)
      attention = nn.MultiHeadDotProductAttention(c.heads, name=f'attention_{number}')
      x_BxLxD += attention(norm(x_BxLxD, 'attention'))
      # KAT's pair of presets: the identity, then swish.
      up = dense(c, 4 * c.width, f'up_{number}', 'identity')
      h = up(norm(x_BxLxD, 'feed_forward'))
      x_BxLxD += dense(c, c.width, f'down_{number}')(self.activation(h))
    x_BxD = nn.LayerNorm(name='norm_head')(x_BxLxD).mean(1)
    return nn.Dense(c.outputs, name='head')(x_BxD)


ARCHITECTURES = {
  'stack': Stack,
  'convnet': ConvNet,
  'resnet': ResNet,
  'vit': VisionTransformer,
}
