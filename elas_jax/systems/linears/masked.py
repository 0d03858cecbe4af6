"""y = x (W * M) + bias, a dense map with weights fixed at zero (arXiv 1803.03635).

x (..., I), W 'kernel' (I, O), 'bias' (O,) only with parts.use_bias; the buffer 'mask' M
(I, O), of booleans, says which weights there are. W starts as that of a dense map of the
same seed, bit for bit, and M as all ones: converters prune. W where M is zero has no
gradient and takes part in nothing, so that what is pruned stays so when training goes on.
On images it is a convolution, with W and M (h, w, I, O).
"""

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from elas_jax.ops import linear as ops
from elas_jax.ops.quadratic import convolve
from elas_jax.systems.kinds import Parts
from elas_jax.systems.linears.common import (
  bias_of,
  convolution_start,
  plain_start,
  plus,
)


@dataclasses.dataclass(frozen=True)
class Masked:
  def check(self, where: str, config: Any) -> None:
    pass

  def make(self, features: int, parts: Parts, name: str) -> nn.Module:
    return Module(features, self, parts, name=name)

  def convolve(
    self, features: int, kernel: tuple[int, int], stride: int, parts: Parts, name: str
  ) -> nn.Module:
    """Of so many pixels, odd numbers, with zeros beyond the border."""
    return Convolution(features, self, parts, kernel, stride, name=name)

  def kernels(self) -> int:
    return 1

  def flops(self, shapes: dict[str, tuple[int, ...]]) -> float:
    """Of the product with the whole of W * M; zeros are multiplied as well."""
    return 6.0 * math.prod(shapes['kernel'])

  def merged(self, p: dict[str, jax.Array]) -> jax.Array:
    return p['kernel'] * p['mask'].astype(p['kernel'].dtype)


class Module(nn.Module):
  features: int
  kind: Masked
  parts: Parts

  @nn.compact
  def weights(self, inputs: int) -> tuple[tuple[jax.Array, ...], jax.Array | None]:
    shape = (inputs, self.features)
    return (masked_kernel(self, plain_start(self.parts), shape),), bias_of(self)

  def kernels(self, inputs: int) -> tuple[jax.Array, ...]:
    """The matrices of the product that this map is, where it has no bias."""
    return self.weights(inputs)[0]

  def __call__(self, x: jax.Array) -> jax.Array:
    kernels, bias_O = self.weights(x.shape[-1])
    return plus(ops.chain(x, kernels), bias_O)


class Convolution(nn.Module):
  """(B, H, W, I) to (B, H / stride, W / stride, features)."""

  features: int
  kind: Masked
  parts: Parts
  kernel: tuple[int, int]
  stride: int

  @nn.compact
  def __call__(self, x_BxHxWxI: jax.Array) -> jax.Array:
    shape = (*self.kernel, x_BxHxWxI.shape[-1], self.features)
    kernel = masked_kernel(self, convolution_start(self.parts), shape)
    padding = [(side // 2, side // 2) for side in self.kernel]
    strides = (self.stride, self.stride)
    y = convolve(x_BxHxWxI, kernel.astype(x_BxHxWxI.dtype), None, strides, padding)
    return plus(y, bias_of(self))


def masked_kernel(
  module: Any, init: jax.nn.initializers.Initializer, shape: tuple[int, ...]
) -> jax.Array:
  """W * M of a module, which declares both here."""
  kernel = module.param('kernel', init, shape, module.parts.param_dtype)
  mask = module.variable('buffers', 'mask', jnp.ones, shape, jnp.bool_).value
  return module.kind.merged({'kernel': kernel, 'mask': mask})


AXES = {'kernel': ('in', 'out'), 'mask': ('in', 'out'), 'bias': (None,)}
NO_DECAY = ('bias',)
CASES = (Masked(),)


def truth(kind: Masked, x: np.ndarray, p: dict) -> np.ndarray:
  return x @ (p['kernel'] * p['mask']) + p.get('bias', 0)
