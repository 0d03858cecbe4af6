"""Augmentation of images in training, on the device, from the step's random key."""

import dm_pix as pix
import jax
import jax.numpy as jnp


def nothing(key: jax.Array, x_BxHxWxC: jax.Array) -> jax.Array:
  del key
  return x_BxHxWxC


def flip_crop(key: jax.Array, x_BxHxWxC: jax.Array) -> jax.Array:
  """A mirror image half of the time, and a crop after padding by 4: CIFAR's recipe."""
  flip_key, crop_key = jax.random.split(key)
  x = pix.random_flip_left_right(flip_key, x_BxHxWxC)
  padded = jnp.pad(x, ((0, 0), (4, 4), (4, 4), (0, 0)))
  keys = jax.random.split(crop_key, len(x))
  return jax.vmap(lambda key, image: pix.random_crop(key, image, x.shape[1:]))(keys, padded)


AUGMENTATIONS = {'none': nothing, 'flip_crop': flip_crop}
