"""y = x W + bias, a plain linear map.

x (..., I), W 'kernel' (I, O), 'bias' (O,) only with parts.use_bias, zero at the start. W is
normal of standard deviation parts.init_std or, where that is None, as parts.init says:
uniform within 1 / sqrt(I), or normal of variance 1 / I or 2 / I. On images it is a
convolution whose kernel (h, w, I, O) starts with variance 2 / (h w I), or, where
parts.init='lecun_normal', 1 / (h w I).
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from elas_jax.ops import linear as ops
from elas_jax.systems.kinds import Parts
from elas_jax.systems.linears.common import (
  bias_of,
  convolution_start,
  plain_start,
  plus,
)


@dataclasses.dataclass(frozen=True)
class Dense:
  def check(self, where: str, config: Any) -> None:
    pass

  def make(self, features: int, parts: Parts, name: str) -> nn.Module:
    return Module(features, self, parts, name=name)

  def convolve(
    self, features: int, kernel: tuple[int, int], stride: int, parts: Parts, name: str
  ) -> nn.Module:
    """Of so many pixels, odd numbers, with zeros beyond the border."""
    return nn.Conv(
      features,
      kernel,
      stride,
      padding=[(side // 2, side // 2) for side in kernel],
      use_bias=parts.use_bias,
      param_dtype=parts.param_dtype,
      kernel_init=convolution_start(parts),
      name=name,
    )

  def kernels(self) -> int:
    return 1


class Module(nn.Module):
  features: int
  kind: Dense
  parts: Parts

  @nn.compact
  def weights(self, inputs: int) -> tuple[tuple[jax.Array, ...], jax.Array | None]:
    shape, dtype = (inputs, self.features), self.parts.param_dtype
    kernel_IxO = self.param('kernel', plain_start(self.parts), shape, dtype)
    return (kernel_IxO,), bias_of(self)

  def kernels(self, inputs: int) -> tuple[jax.Array, ...]:
    """The matrices of the product that this map is, where it has no bias."""
    return self.weights(inputs)[0]

  def __call__(self, x: jax.Array) -> jax.Array:
    kernels, bias_O = self.weights(x.shape[-1])
    return plus(ops.chain(x, kernels), bias_O)


AXES = {'kernel': ('in', 'out'), 'bias': (None,)}
NO_DECAY = ('bias',)
MATRICES = ('kernel',)
CASES = (Dense(),)


def truth(kind: Dense, x: np.ndarray, p: dict) -> np.ndarray:
  return x @ p['kernel'] + p.get('bias', 0)
