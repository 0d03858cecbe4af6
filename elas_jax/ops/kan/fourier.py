"""Fourier series as a KAN basis (FourierKAN)."""

import jax
import jax.numpy as jnp


def fourier_basis(x: jax.Array, frequencies: int) -> jax.Array:
  """[cos kx, sin kx] for k = 1 ... frequencies: (..., I) -> (..., I, 2 frequencies)."""
  k = jnp.arange(1.0, frequencies + 1).reshape((1,) * x.ndim + (-1,))
  angles = x.astype(jnp.float32)[..., None] * k
  return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)
