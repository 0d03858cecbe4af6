"""The 2:4 operations in plain jnp: the truth for the kernels, and the path elsewhere."""

import jax
import jax.numpy as jnp

from pallas_kernels.two_four.packed import EMPTY, TwoFour, pack_nibbles, unpack_nibbles
from pallas_kernels.two_four.rules import apply_rule, transposable_mask

FEATURES = 1  # a feed-forward has a multiple of these: any number


def compress(
  y: jax.Array,
  axis: int,
  rule: str,
  activation: str | None,
  key: jax.Array | None,
  scale: jax.Array | None,
) -> TwoFour:
  """See op.compress. `axis` is 0 or 1."""
  x = activate(y, activation).astype(jnp.float32)
  mask = None
  if rule == 'transposable':
    padding = [(0, -size % 4) for size in x.shape]
    mask = transposable_mask(jnp.pad(x, padding))[: x.shape[0], : x.shape[1]]
  along = lambda x: (x if axis == 1 else x.T).reshape(-1, y.shape[axis] // 4, 4)
  mask = None if mask is None else along(mask)
  mask, kept = apply_rule(rule, along(x), key=key, scale=scale, mask=mask)
  values, metadata = pack(mask, kept.astype(y.dtype))
  return TwoFour(values if axis == 1 else values.T, metadata, axis, y.shape)


def compress_both(y: jax.Array, rule: str, activation: str | None):
  """See op.compress_both."""
  return tuple(compress(y, axis, rule, activation, None, None) for axis in (1, 0))


def activate(y: jax.Array, activation: str | None) -> jax.Array:
  """relu(y)^2 for 'relu2', in float32, rounded as the layer without 2:4 would hold it."""
  if activation is None:
    return y
  return jnp.square(jnp.maximum(y.astype(jnp.float32), 0)).astype(y.dtype)


def pack(mask: jax.Array, kept: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Groups (M, K/4, 4), two of them kept in each: values (M, K/2) and the metadata."""
  m = [mask[..., i] for i in range(4)]
  v = [kept[..., i] for i in range(4)]
  first = jnp.where(m[0], 0, jnp.where(m[1], 1, 2)).astype(jnp.uint32)
  last = jnp.where(m[3], 3, jnp.where(m[2], 2, 1)).astype(jnp.uint32)
  low = jnp.where(m[0], v[0], jnp.where(m[1], v[1], v[2]))
  high = jnp.where(m[3], v[3], jnp.where(m[2], v[2], v[1]))
  values = jnp.stack([low, high], axis=-1).reshape(mask.shape[0], -1)
  # A group of zeros has the nibble 0b0100 under every rule.
  empty = (low == 0) & (high == 0)
  return values, pack_nibbles(jnp.where(empty, jnp.uint32(EMPTY), first | last << 2))


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


def up_compress(x: jax.Array, w: jax.Array, transpose_w: bool) -> TwoFour:
  """See fused.up_compress."""
  h = jnp.matmul(x, w.T if transpose_w else w)
  return compress(h, 1, 'top2', 'relu2', None, None)


def gated_backward(g: jax.Array, w: jax.Array, z: TwoFour, transpose_w: bool) -> TwoFour:
  """See fused.gated_backward."""
  T, half = z.values.shape
  dz = jnp.matmul(g, w.T if transpose_w else w).reshape(T, half // 2, 4)
  nibbles = unpack_nibbles(z.metadata, T, half // 2).astype(jnp.int32)
  kept = jnp.stack([nibbles & 3, nibbles >> 2], axis=-1)
  dz = jnp.take_along_axis(dz, kept, axis=-1).reshape(T, half)
  slope = 2 * jnp.sqrt(z.values.astype(jnp.float32)) * dz.astype(jnp.float32)
  return TwoFour(slope.astype(z.dtype), z.metadata, 1, z.shape)


def weight_gradient(z: TwoFour, g: jax.Array, out_dtype: jnp.dtype) -> jax.Array:
  """See fused.weight_gradient."""
  out = jnp.matmul(expand(z).T, g, preferred_element_type=jnp.float32)
  return out.astype(out_dtype)


def feed_forward(s: jax.Array, up: jax.Array, down: jax.Array, keep: bool):
  """See fused.feed_forward."""
  z = up_compress(s, up, False)
  out = matmul(z, down, False, s.dtype)
  return (out, z) if keep else out
