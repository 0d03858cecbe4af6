"""ReLU-KAN (arXiv 2406.02075): bumps made of two ReLUs."""

import jax
import jax.numpy as jnp

from elas_jax.ops.kan.base import lead


def relu_basis(
  x: jax.Array, starts_IxS: jax.Array, ends_IxS: jax.Array, width: float
) -> jax.Array:
  """(relu(x - s) relu(e - x) 4 / width^2)^2: (..., I) -> (..., I, S), in float32.

  Where e - s is still `width`, its value at the start, this is a bump of height 1. Every
  input has intervals of its own.
  """
  x = x.astype(jnp.float32)[..., None]
  above = jax.nn.relu(x - lead(starts_IxS, x.ndim))
  below = jax.nn.relu(lead(ends_IxS, x.ndim) - x)
  return (above * below * (4 / width**2)) ** 2
