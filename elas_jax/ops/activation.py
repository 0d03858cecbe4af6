"""Feed-forward activations."""

import jax
import jax.numpy as jnp


def squared_relu(h: jax.Array) -> jax.Array:
  """relu(h)^2 (Primer, arXiv 2109.08668)."""
  positive = jnp.maximum(h, 0)
  return positive * positive


def swiglu(gate: jax.Array, up: jax.Array) -> jax.Array:
  """silu(gate) * up (Shazeer, arXiv 2002.05202)."""
  return jax.nn.silu(gate) * up
