"""Quadratic neurons (arXiv 2110.06081, IEEE TNNLS 36(1)) as pure functions.

  y = (x W_r + b_r) (x W_g + b_g) + (x * x) W_b + c,   * and the product entrywise

The forms have some of the branches r, g and b; every branch is one linear map, dense or
convolution. The activation that follows is the caller's.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from elas_jax.ops.linear import dense

# Form -> its branches. Of the parameters of a linear layer with bias: 3, 2, 2 and 1 times.
FORMS = {
  'full': ('r', 'g', 'b'),
  'compact': ('r', 'b'),  # (x W_r + b_r) + (x * x) W_b + c
  'hadamard': ('r', 'g'),  # (x W_r + b_r) (x W_g + b_g)
  'square': ('b',),  # (x * x) W_b + c
}

Linear = Callable[[jax.Array, jax.Array, Any], jax.Array]


def quadratic(
  x: jax.Array, parameters: dict[str, jax.Array], linear: Linear = dense
) -> jax.Array:
  """The formula above with those branches whose kernel is in `parameters`.

  Args:
    x: (..., I) for dense maps; what `linear` takes otherwise.
    parameters: kernel_r, kernel_g, kernel_b and, each where there is one, bias_r, bias_g,
      bias_b (the c of the formula), shape (O,). Kernels are cast to x's dtype.
    linear: (x, kernel, dtype of y) -> y, without bias.

  Branches and their product are float32, and rounded once to x's dtype: in bfloat16 a
  small x W_g beside b_g = 1 would be lost in every entry.

  With W_g = 0, b_g = 1, W_b = 0 and c = 0 the result is that of the plain layer bit for
  bit, where x is finite: a product with 1 and a sum with 0 do not round. The gradients of
  W_r and b_r are the plain ones too, though a compiler may sum b_r's rows in another
  order; that of W_g is x^T ((x W_r + b_r) delta).

  Saved for the backward pass: x, and both factors of the product; x * x is formed again.
  """
  branch = functools.partial(_branch, x, parameters, linear)
  y = None
  if 'kernel_r' in parameters:
    y = branch('r')
  if 'kernel_g' in parameters:
    y = y * branch('g')
  if 'kernel_b' not in parameters:
    return y.astype(x.dtype)
  squares = lambda x, kernel, dtype: jax.checkpoint(
    lambda x, kernel: linear(x * x, kernel, dtype)
  )(x, kernel)
  b = _branch(x, parameters, squares, 'b')
  return (b if y is None else y + b).astype(x.dtype)


def _branch(x, parameters, linear, name):
  y = linear(x, parameters[f'kernel_{name}'].astype(x.dtype), jnp.float32)
  bias_O = parameters.get(f'bias_{name}')
  if bias_O is None:
    return y
  return y + bias_O.astype(jnp.float32).reshape((1,) * (y.ndim - 1) + (-1,))


def convolve(
  x_BxHxWxI: jax.Array,
  kernel_hxwxIxO: jax.Array,
  dtype: Any = None,
  stride: Sequence[int] = (1, 1),
  padding: str | Sequence[tuple[int, int]] = 'SAME',
) -> jax.Array:
  """A 2-D convolution, channels last (NHWC, kernels HWIO) -> (B, H', W', O), of `dtype`.

  `padding` is 'SAME', 'VALID' or ((top, bottom), (left, right)).
  """
  y = jax.lax.conv_general_dilated(
    x_BxHxWxI,
    kernel_hxwxIxO,
    tuple(stride),
    padding,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )
  return y.astype(dtype or y.dtype)
