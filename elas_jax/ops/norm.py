"""Normalisations."""

import jax
import jax.numpy as jnp


def rms_norm(x: jax.Array, scale_D: jax.Array, epsilon: float) -> jax.Array:
  """X / sqrt(mean(x^2) + epsilon) * scale over the last axis, in float32.

  RMSNorm (Zhang and Sennrich, arXiv 1910.07467). Returns x's dtype.
  """
  wide = x.astype(jnp.float32)
  inverse = jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + epsilon)
  scale = scale_D.astype(jnp.float32).reshape((1,) * (x.ndim - 1) + (-1,))
  return (wide * inverse * scale).astype(x.dtype)


def batch_norm(
  x: jax.Array,
  mean_C: jax.Array,
  variance_C: jax.Array,
  scale_C: jax.Array,
  bias_C: jax.Array,
  epsilon: float,
) -> jax.Array:
  """(x - mean) / sqrt(variance + epsilon) * scale + bias, by the last axis."""
  by_channel = lambda v: v.reshape((1,) * (x.ndim - 1) + (-1,))
  factor = scale_C * jax.lax.rsqrt(variance_C + epsilon)
  return (x - by_channel(mean_C)) * by_channel(factor) + by_channel(bias_C)
