"""SKAN (LArctan-SKAN): one parameter k for every edge."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.polynomial import Chebyshev, Polynomial

from elas_jax.ops.linear import dense

TAN_PI_8 = math.sqrt(2) - 1
# p with arctan(t) = t + t^3 p(t^2) up to tan(pi / 8).
ARCTAN_POLYNOMIAL = Chebyshev.interpolate(
  lambda z: (np.arctan(np.sqrt(z)) / np.sqrt(z) - 1) / z, 4, domain=[0, TAN_PI_8**2]
).convert(kind=Polynomial)


@jax.custom_jvp
def arctan(x: jax.Array) -> jax.Array:
  """The inverse tangent of a float32 x, within 3 units in the last place.

  Of |x|: above tan(3 pi / 8) it is pi / 2 - arctan(1 / x), above tan(pi / 8)
  pi / 4 + arctan((x - 1) / (x + 1)), and what is left is a polynomial. XLA's own is
  slow on a CPU: with it benchmarks/kan_layers.py saw this layer take 8 ms, not 1.
  """
  size = jnp.abs(x)
  steep, middle = size > 1 / TAN_PI_8, size > TAN_PI_8
  rest = jnp.where(middle, (size - 1) / (size + 1), size)
  rest = jnp.where(steep, -1 / size, rest)
  offset = jnp.where(steep, jnp.pi / 2, jnp.where(middle, jnp.pi / 4, 0))
  powers_down = [float(c) for c in ARCTAN_POLYNOMIAL.coef[::-1]]
  polynomial = functools.reduce(lambda y, c: y * rest**2 + c, powers_down)
  return jnp.copysign(offset + (rest + rest**3 * polynomial), x)


@arctan.defjvp
def _arctan_jvp(x, tangent):
  return arctan(*x), tangent[0] / (1 + x[0] ** 2)


# Functions phi(k x) or k phi(x) that a matrix product can sum over inputs. The published
# log(1 + e^(kx)) - log 2 cannot, without a tensor of inputs times outputs for each row.
EDGES = {'arctan': arctan, 'sin': jnp.sin, 'cos': jnp.cos, 'relu': jax.nn.relu}


def skan(x: jax.Array, k_JxO: jax.Array, edge: str, dtype: Any) -> jax.Array:
  """Y_o = sum over j of k_jo f(x_j), or of max(k_jo x_j, 0) for 'relu'; in float32.

  Shapes (..., I) and (I + 1, O) -> (..., O): the bias is one more input, which is 1.
  max(kx, 0) = max(k, 0) max(x, 0) + max(-k, 0) max(-x, 0).
  """
  x = x.astype(jnp.float32)
  x = jnp.concatenate([x, jnp.ones_like(x[..., :1])], axis=-1)
  f = EDGES[edge]
  if edge == 'relu':
    x = jnp.concatenate([x, -x], axis=-1)
    k_JxO = jax.nn.relu(jnp.concatenate([k_JxO, -k_JxO]))
  return dense(f(x).astype(dtype), k_JxO.astype(dtype), jnp.float32)
