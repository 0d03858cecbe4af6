"""AF-KAN (arXiv 2503.06112): pairs of activations, reduced to one value per input."""

import functools
import operator
from collections.abc import Callable

import jax
import jax.numpy as jnp

FUNCTIONS = {
  'quad1': lambda a, b: (a * b) ** 2,
  'quad2': lambda a, b: a * b + a**2 + b**2,
  'sum': lambda a, b: a + b,
  'prod': lambda a, b: a * b,
  'sum_prod': lambda a, b: a + b + a * b,
  'cubic1': lambda a, b: (a + b) * (a**2 + b**2),
  'cubic2': lambda a, b: (a * b) ** 3,
}


def pair_functions(
  x: jax.Array, low_S: jax.Array, high_S: jax.Array, activation: Callable, function: str
) -> jax.Array:
  """f(act(x - low), act(high - x)): (..., I) -> (S, ..., I), in float32.

  The bounds are shared by all inputs. S comes first, for vectors along the inputs. The
  barrier has the compiler keep these values alone, not both activations as well.
  """
  x = x.astype(jnp.float32)[None]
  a = activation(x - follow(low_S, x.ndim - 1))
  b = activation(follow(high_S, x.ndim - 1) - x)
  return jax.lax.optimization_barrier(FUNCTIONS[function](a, b))


def follow(array: jax.Array, ndim: int) -> jax.Array:
  """The array in float32, with `ndim` axes of size 1 behind."""
  return array.astype(jnp.float32).reshape(array.shape + (1,) * ndim)


def min_max(y: jax.Array, over: str) -> jax.Array:
  """(y - min) / (max - min) over 'batch' (everything) or each 'example' (S, I); or 'none'.

  The paper's L2MM over the whole batch first divides by the L2 norm, which the min and
  max undo. A constant gives zeros. With 'batch' one example's output depends on others.
  """
  if over == 'none':
    return y
  axes = (0, -1) if over == 'example' else None
  low = jnp.min(y, axis=axes, keepdims=True)
  spread = jnp.max(y, axis=axes, keepdims=True) - low
  return (y - low) / jnp.maximum(spread, 1e-12)


def global_attention(
  y: jax.Array, kernel_S: jax.Array, bias: jax.Array, temperature: jax.Array
) -> jax.Array:
  """Sum over s of y a with a = softmax over *inputs* of (y w + b) / max(T, 1)."""
  # Without the barrier XLA forms the sum within the softmax, which is slow on a CPU.
  logits = jax.lax.optimization_barrier(multistep(y, kernel_S, bias))
  return _sum(list(y)) * jax.nn.softmax(logits / jnp.maximum(temperature, 1), axis=-1)


def spatial_attention(
  y: jax.Array, kernel_3xS: jax.Array, bias_S: jax.Array, temperature: jax.Array
) -> jax.Array:
  """Sum over s of y a, a = softmax over *s* of (conv(y) + b) / max(T, 1).

  conv(y)_si = sum over j of y_s(i+j-1) w_js, zero beyond the inputs.
  """
  padded = jnp.pad(y, [(0, 0)] * (y.ndim - 1) + [(1, 1)])
  near = (padded[..., j : j + y.shape[-1]] for j in range(3))
  taps = (part * follow(kernel_S, y.ndim - 1) for part, kernel_S in zip(near, kernel_3xS))
  logits = functools.reduce(operator.add, taps) + follow(bias_S, y.ndim - 1)
  return jnp.sum(y * jax.nn.softmax(logits / jnp.maximum(temperature, 1), axis=0), 0)


def multistep(y: jax.Array, kernel_S: jax.Array, bias: jax.Array) -> jax.Array:
  """Y w + b, the plain linear reduction."""
  terms = [
    y_s * kernel for y_s, kernel in zip(y, kernel_S.astype(jnp.float32), strict=True)
  ]
  return _sum(terms) + bias.astype(jnp.float32)


# From (S, ..., I) to (..., I).
REDUCTIONS = {
  'global_attn': global_attention,
  'spatial_attn': spatial_attention,
  'multistep': multistep,
}


def _sum(ys: list[jax.Array]) -> jax.Array:
  return functools.reduce(operator.add, ys)


def _product(ys: list[jax.Array]) -> jax.Array:
  return functools.reduce(operator.mul, ys)


# How the outputs of several reductions join.
COMBINATIONS = {
  'sum': _sum,
  'product': _product,
  'sum_product': lambda ys: _sum(ys) + _product(ys),
  'quadratic': lambda ys: _sum(ys) + _product(ys) + _sum([y * y for y in ys]),
}
