"""The 2:4 operations in plain jnp: the truth for the kernels, and the path elsewhere."""

import jax
import jax.numpy as jnp

from pallas_kernels.two_four.packed import TwoFour, pack_nibbles, unpack_nibbles
from pallas_kernels.two_four.rules import apply_rule


def compress(
  y: jax.Array,
  axis: int,
  rule: str,
  activation: str | None,
  key: jax.Array | None,
  scale: jax.Array | None,
) -> TwoFour:
  """See op.compress. `axis` is 0 or 1."""
  x_MxK = y if axis == 1 else y.T
  M, K = x_MxK.shape
  groups = x_MxK.astype(jnp.float32).reshape(M, K // 4, 4)
  if activation == 'relu2':
    groups = jnp.square(jnp.maximum(groups, 0))
    # What is pruned is the activation as the layer without 2:4 would hold it.
    groups = groups.astype(y.dtype).astype(jnp.float32)
  mask, kept = apply_rule(rule, groups, key=key, scale=scale)
  m = [mask[..., i] for i in range(4)]
  v = [kept[..., i] for i in range(4)]
  first = jnp.where(m[0], 0, jnp.where(m[1], 1, 2)).astype(jnp.uint32)
  last = jnp.where(m[3], 3, jnp.where(m[2], 2, 1)).astype(jnp.uint32)
  low = jnp.where(m[0], v[0], jnp.where(m[1], v[1], v[2]))
  high = jnp.where(m[3], v[3], jnp.where(m[2], v[2], v[1]))
  values = jnp.stack([low, high], axis=-1).reshape(M, K // 2).astype(y.dtype)
  # A group of zeros has the nibble 0b0100 under every rule.
  empty = (low == 0) & (high == 0)
  nibbles = jnp.where(empty, jnp.uint32(0b0100), first | last << 2)
  values = values if axis == 1 else values.T
  return TwoFour(values, pack_nibbles(nibbles), axis, y.shape)


def expand(packed: TwoFour) -> jax.Array:
  """The unpacked matrix, zeros where nothing was kept."""
  values_MxK2 = packed.values if packed.axis == 1 else packed.values.T
  M, half = values_MxK2.shape
  nibbles_MxG = unpack_nibbles(packed.metadata, M, half // 2)
  first, last = nibbles_MxG & 3, nibbles_MxG >> 2
  low, high = values_MxK2[:, 0::2], values_MxK2[:, 1::2]
  zero = jnp.zeros((), packed.dtype)
  entries = [jnp.where(first == i, low, jnp.where(last == i, high, zero)) for i in range(4)]
  x_MxK = jnp.stack(entries, axis=-1).reshape(M, 2 * half)
  return x_MxK if packed.axis == 1 else x_MxK.T


def matmul(
  packed: TwoFour, b: jax.Array, transpose_b: bool, out_dtype: jnp.dtype
) -> jax.Array:
  """See op.matmul: the product of the unpacked matrix."""
  x_MxK = expand(packed) if packed.axis == 1 else expand(packed).T
  b_KxN = b.T if transpose_b else b
  return jnp.matmul(x_MxK, b_KxN, preferred_element_type=out_dtype)
