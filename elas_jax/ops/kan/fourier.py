"""Fourier series as a KAN basis (FourierKAN)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from elas_jax.ops.kan.base import per_input


def fourier_basis(x: jax.Array, frequencies: int) -> jax.Array:
  """[cos kx, sin kx] for k = 1 ... frequencies: (..., I) -> (..., I, 2 frequencies).

  In float32, as powers k of cos x + i sin x by repeated squaring: one
  sine and one cosine for all k, and k x is not rounded.
  """
  return per_input(functools.partial(_powers, frequencies=frequencies), x)


def _powers(x: jax.Array, frequencies: int) -> jax.Array:
  # Without the barrier XLA computes both anew for every k.
  first = jax.lax.optimization_barrier((jnp.cos(x), jnp.sin(x)))
  cosine, sine = (value[..., None] for value in first)
  real, imaginary = 1.0, 0.0
  k = np.tile(np.arange(1, frequencies + 1), 2)
  for bit in range(frequencies.bit_length()):
    product = real * cosine - imaginary * sine, real * sine + imaginary * cosine
    taken = (k >> bit) % 2 == 1
    real, imaginary = (
      jnp.where(taken, new, old) for new, old in zip(product, (real, imaginary))
    )
    cosine, sine = cosine**2 - sine**2, 2 * cosine * sine
  return jnp.where(np.arange(2 * frequencies) < frequencies, real, imaginary)
