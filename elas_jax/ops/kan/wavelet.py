"""Wavelets as KAN bases (Wav-KAN, arXiv 2405.12832)."""

import math

import jax
import jax.numpy as jnp


def mexican_hat(t: jax.Array) -> jax.Array:
  """2 / (sqrt(3) pi^(1/4)) (1 - t^2) exp(-t^2 / 2)."""
  norm = 2 / (math.sqrt(3) * math.pi**0.25)
  return norm * (1 - t * t) * jnp.exp(-t * t / 2)


def morlet(t: jax.Array) -> jax.Array:
  """cos(5 t) exp(-t^2 / 2), the real part."""
  return jnp.cos(5 * t) * jnp.exp(-t * t / 2)


def dog(t: jax.Array) -> jax.Array:
  """-t exp(-t^2 / 2), the derivative of a Gaussian."""
  return -t * jnp.exp(-t * t / 2)


def meyer(t: jax.Array) -> jax.Array:
  """sin(pi |t|) cos(pi / 2 v(2 |t| - 1)), zero from |t| = 1 on.

  v(u) = u^4 (35 - 84 u + 70 u^2 - 20 u^3) climbs from v(0) = 0 to v(1) = 1; below it is 0.
  """
  size = jnp.abs(t)
  u = jnp.clip(2 * size - 1, 0, 1)
  v = u**4 * (35 - 84 * u + 70 * u**2 - 20 * u**3)
  return jnp.where(size < 1, jnp.sin(math.pi * size) * jnp.cos(math.pi / 2 * v), 0)


def shannon(t: jax.Array) -> jax.Array:
  """2 sinc(2 t) - sinc(t) with sinc(t) = sin(pi t) / (pi t): the band from pi to 2 pi.

  Wav-KAN's code multiplies one sinc by a window over the input features, which is no
  function of t; this is the textbook wavelet, centred.
  """
  return 2 * jnp.sinc(2 * t) - jnp.sinc(t)


WAVELETS = {
  'mexican_hat': mexican_hat,
  'morlet': morlet,
  'dog': dog,
  'meyer': meyer,
  'shannon': shannon,
}


def wavelet_basis(
  x: jax.Array, scale_IxS: jax.Array, translation_IxS: jax.Array, name: str
) -> jax.Array:
  """psi((x_i - translation_is) / scale_is): (..., I) -> (..., I, S), in float32."""
  x = x.astype(jnp.float32)[..., None]
  scale, translation = (
    a.astype(jnp.float32).reshape((1,) * (x.ndim - 2) + a.shape)
    for a in (scale_IxS, translation_IxS)
  )
  return WAVELETS[name]((x - translation) / scale)
