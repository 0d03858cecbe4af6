"""Quadratic layers (arXiv 2110.06081), dense and convolutional; see ops/quadratic.py.

`start` is how they begin:

  relinear   W_g = 0, b_g = 1, W_b = 0, c = 0, and W_r, b_r as in a plain layer: at its
             start the layer is the plain one, bit for bit
  random     every branch as a plain layer, for the nets that ReLinear is compared with

Kernels of a plain layer are normal, of standard deviation init_std, or sqrt(2 / fan-in)
(Kaiming) where that is None; biases are zero. Without use_bias there is no b_r and no c,
but b_g stays, since ReLinear needs its 1. In bfloat16 that 1 moves in steps of 1/128 (up)
and 1/256 (down): keep parameters in float32. Squares make deep stacks explode that have no
normalisation before the activation.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from elas_jax.common.errors import UserError
from elas_jax.common.limits import quoted
from elas_jax.ops.quadratic import FORMS, convolve, quadratic

STARTS = ('relinear', 'random')


class QuadraticDense(nn.Module):
  """y = (x W_r + b_r) (x W_g + b_g) + (x * x) W_b + c, from (..., I) to (..., features)."""

  features: int
  form: str = 'full'  # a name of ops/quadratic.py:FORMS
  start: Literal['relinear', 'random'] = 'relinear'
  use_bias: bool = True
  init_std: float | None = None
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    return quadratic(x, _parameters(self, (x.shape[-1], self.features)))


class QuadraticConv(nn.Module):
  """The same with 2-D convolutions, (B, H, W, I) to (B, H', W', features)."""

  features: int
  kernel_size: tuple[int, int] = (3, 3)
  stride: tuple[int, int] = (1, 1)
  padding: str | Sequence[tuple[int, int]] = 'SAME'
  form: str = 'full'
  start: Literal['relinear', 'random'] = 'relinear'
  use_bias: bool = True
  init_std: float | None = None
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x_BxHxWxI: jax.Array) -> jax.Array:
    shape = (*self.kernel_size, x_BxHxWxI.shape[-1], self.features)
    linear = functools.partial(convolve, stride=self.stride, padding=self.padding)
    return quadratic(x_BxHxWxI, _parameters(self, shape), linear)


def _parameters(layer: nn.Module, shape: tuple[int, ...]) -> dict[str, jax.Array]:
  """Declares the kernels of `shape` and biases of the layer's form. That of r comes first,
  so that it is drawn as the kernel of a plain layer of that name."""
  _check(layer)
  std = layer.init_std
  if std is None:
    std = math.sqrt(2 / math.prod(shape[:-1]))
  plain, zeros, ones = (
    nn.initializers.normal(std),
    nn.initializers.zeros,
    nn.initializers.ones,
  )
  relinear, dtype, parameters = layer.start == 'relinear', layer.param_dtype, {}
  for branch in FORMS[layer.form]:
    init = plain if branch == 'r' or not relinear else zeros
    parameters[f'kernel_{branch}'] = layer.param(f'kernel_{branch}', init, shape, dtype)
    if layer.use_bias or branch == 'g':
      init = ones if branch == 'g' and relinear else zeros
      name = f'bias_{branch}'
      parameters[name] = layer.param(name, init, shape[-1:], dtype)
  return parameters


def _check(layer: nn.Module) -> None:
  if layer.form not in FORMS:
    raise UserError(f'form={layer.form!r}: must be one of {quoted(FORMS)}')
  if layer.start not in STARTS:
    raise UserError(f'start={layer.start!r}: must be one of {quoted(STARTS)}')
  if layer.form == 'square' and layer.start != 'random':
    raise UserError(
      f"start={layer.start!r}: must be 'random' with form='square', which has no linear "
      'branch to start from'
    )
