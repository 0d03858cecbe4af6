"""What architectures share: checks of images, and layers that are plain by design."""

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax

from elas_jax.common.errors import UserError
from elas_jax.common.fields import at_least
from elas_jax.common.limits import quoted
from elas_jax.systems.activations import ACTIVATIONS
from elas_jax.systems.kinds import Axes, Parts, name_of
from elas_jax.systems.linears import LINEARS
from elas_jax.systems.sown import sow

# Of flax's own layers.
DENSE: Axes = {'kernel': ('in', 'out'), 'bias': (None,)}
CONVOLUTION: Axes = {'kernel': (None, None, 'in', 'out'), 'bias': (None,)}
KERNEL = 3  # side of a convolution


def check_images(where: str, kind: str, model: Any) -> None:
  """Refuses what cannot be a network on images of at least one layer."""
  at_least(1, 'model', model, 'depth')
  if len(model.input_shape) != 3:
    raise UserError(
      f'{where}={kind!r}: needs images, model.input_shape of (H, W, C), not '
      f"{model.input_shape}; 'stack' takes any row"
    )


def check_convolution(where: str, kind: str, model: Any) -> None:
  """Refuses a kind of linear map that there is no convolution of."""
  if not hasattr(model.linear, 'convolve'):
    accepted = [name for name, linear in LINEARS.items() if hasattr(linear, 'convolve')]
    raise UserError(
      f'model.linear={name_of(LINEARS, model.linear)!r}: must be one of '
      f'{quoted(accepted)} with {where}={kind!r}, whose layers are convolutions'
    )


def halved(side: int, times: int) -> int:
  """Of an image, after so many layers of stride 2."""
  return side if not times else halved(-(-side // 2), times - 1)


def positions(model: Any, times: int = 0) -> int:
  """Of an image, after so many layers of stride 2."""
  H, W = model.input_shape[:2]
  return halved(H, times) * halved(W, times)


def window(model: Any, side: int) -> tuple[int, int]:
  """Of side x side pixels; side x 1 of sequences, which are images of (H, 1, C)."""
  h, w = (side if extent > 1 else 1 for extent in model.input_shape[:2])
  return h, w


def entries(model: Any, channels: int) -> int:
  """Of what a convolution reads at once."""
  return math.prod(window(model, KERNEL)) * channels


def plain_convolution(model: Any, features: int, name: str) -> nn.Module:
  """3 x 3, or 3 of a sequence, with zeros beyond the border."""
  kernel = window(model, KERNEL)
  return nn.Conv(
    features,
    kernel,
    padding=[(side // 2, side // 2) for side in kernel],
    use_bias=model.parts.use_bias,
    kernel_init=nn.initializers.he_normal(),
    name=name,
  )


class Network(nn.Module):
  """The base of the modules: parts of the model by their names."""

  model: Any
  train: bool

  @property
  def parts(self) -> Parts:
    return dataclasses.replace(self.model.parts, train=self.train)

  def norm(self, name: str) -> Any:
    return self.model.norm.make(self.parts, name=name, train=self.train)

  def activation(self, name: str) -> Any:
    kind = self.model.activation
    function = kind.make(self.parts, name=name)
    if isinstance(kind, ACTIVATIONS['none']):
      return function

    def given_away(x: jax.Array) -> jax.Array:
      y = function(x)
      sow(self, 'activation', lambda: y.reshape(-1, y.shape[-1]), part=name)
      return y

    return given_away

  def linear(self, features: int, name: str) -> nn.Module:
    return self.model.linear.make(features, self.parts, name=name)

  def convolution(self, features: int, stride: int, name: str) -> nn.Module:
    c, kernel = self.model, window(self.model, KERNEL)
    return c.linear.convolve(features, kernel, stride, self.parts, name=name)
