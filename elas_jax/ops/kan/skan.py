"""SKAN (LArctan-SKAN): one parameter k for every edge."""

from typing import Any

import jax
import jax.numpy as jnp

from elas_jax.ops.linear import dense

# Functions phi(k x) or k phi(x) that a matrix product can sum over inputs. The published
# log(1 + e^(kx)) - log 2 cannot, without a tensor of inputs times outputs for each row.
EDGES = {'arctan': jnp.arctan, 'sin': jnp.sin, 'cos': jnp.cos, 'relu': jax.nn.relu}


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
