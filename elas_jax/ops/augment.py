"""Augmentation of images in training, on the device, from the step's random key."""

import dm_pix as pix
import jax
import jax.numpy as jnp


def nothing(key: jax.Array, x_BxHxWxC: jax.Array) -> jax.Array:
  del key
  return x_BxHxWxC


def flip_crop(key: jax.Array, x_BxHxWxC: jax.Array) -> jax.Array:
  """Of each image its mirror image half of the time, and a crop after padding by 4 black
  pixels (-1): the recipe of ResNet on CIFAR (arXiv 1512.03385)."""

  def one(key, image):
    flip_key, crop_key = jax.random.split(key)
    padded = jnp.pad(image, ((4, 4), (4, 4), (0, 0)), constant_values=-1)
    turned = pix.random_flip_left_right(flip_key, padded)
    return pix.random_crop(crop_key, turned, image.shape)

  return jax.vmap(one)(jax.random.split(key, len(x_BxHxWxC)), x_BxHxWxC)


AUGMENTATIONS = {'none': nothing, 'flip_crop': flip_crop}
