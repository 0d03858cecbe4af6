"""The contracts of instructions.py in plain jnp, for Mosaic GPU's interpret mode."""

import jax
import jax.numpy as jnp
from jax import lax

from pallas_kernels.two_four import reference
from pallas_kernels.two_four.packed import TILE_K, TwoFour, unpack_nibbles
from pallas_kernels.two_four.rules import largest_two, transposable_mask


def sparse_multiply(acc, a_ref, b_ref, metadata, a_t: bool, b_t: bool) -> jax.Array:
  a = a_ref[...].T if a_t else a_ref[...]
  b = b_ref[...].T if b_t else b_ref[...]
  packed = TwoFour(a, metadata.reshape(1, -1, 256), 1, (a.shape[0], TILE_K))
  return acc + jnp.dot(reference.expand(packed), b, preferred_element_type=jnp.float32)


def prune(h, values_ref, metadata_ref, activation: str | None) -> None:
  packed = reference.compress(h, 1, 'top2', activation, None, None)
  values_ref[...] = packed.values
  metadata_ref[...] = packed.metadata.reshape(metadata_ref.shape)


def gate(d, values_ref, metadata_ref) -> None:
  z, metadata = values_ref[...], metadata_ref[...].reshape(-1, 1, 256)
  nibbles = unpack_nibbles(metadata, 64, d.shape[1] // 4)
  index = jnp.stack([nibbles & 3, nibbles >> 2], axis=-1).astype(jnp.int32)
  kept = jnp.take_along_axis(d.reshape(*nibbles.shape, 4), index, axis=-1).reshape(z.shape)
  slope = 2 * jnp.sqrt(z.astype(jnp.float32)) * kept.astype(jnp.float32)
  values_ref[...] = slope.astype(z.dtype)


def spread(values_ref, metadata_ref, dense_ref, warpgroup) -> None:
  packed = TwoFour(values_ref[...], metadata_ref[...].reshape(1, 1, 256), 1, (64, 128))
  x = reference.expand(packed)
  dense_ref[...] = lax.dynamic_slice_in_dim(x, warpgroup * 64, 64, axis=1)


def pack_tile(y, half, features, tokens, rule: str, activation: str | None) -> None:
  y = reference.activate(y, activation)
  mask = None
  if rule == 'transposable':
    mask = transposable_mask(y.astype(jnp.float32))
  if features:
    values, metadata = _pack(y, mask)
    features[0][...], features[1][...] = values, metadata.reshape(256)
  if tokens:
    values, metadata = _pack(y.T, mask if mask is None else mask.T)
    tokens[0][...] = values.T
    # Of a run of four words two belong to each half.
    mine, whole = (x.reshape(2, 64, 2, 2) for x in (metadata, tokens[1][...]))
    is_mine = lax.broadcasted_iota(jnp.int32, whole.shape, 2) == half
    tokens[1][...] = jnp.where(is_mine, mine[:, :, :1], whole).reshape(2, 256)


def _pack(x, mask):
  """The values and metadata of x (M, K) along K, with a mask or else the top two."""
  groups = lambda x: x.reshape(x.shape[0], -1, 4)
  if mask is None:
    mask = largest_two(jnp.abs(groups(x).astype(jnp.float32)))
  return reference.pack(mask.reshape(groups(x).shape), groups(x))
