"""The packed form of a 2:4 matrix, in the layout that Hopper's sparse tensor cores read.

Metadata is uint32[K/128, M/64, 256] for K entries along the packed axis and M along the
other, both padded up to whole tiles. Word ((w * 2 + h) * 8 + r) * 4 + j of tile (k, m) has
in its low 16 bits the nibbles of the four groups at row 64 m + 16 w + r and entries
128 k + 32 j + 16 h to + 15, lowest first, and in its high 16 bits those of row + 8. That is
the layout "E" of CUTLASS for sm_90 with a tile of 128.

A nibble is i0 | i1 << 2 with i0 < i1, the kept positions in the group. A group of zeros
keeps positions 0 and 1 (0b0100), since the instruction leaves i0 = i1 undefined.
"""

import dataclasses

import jax
import jax.numpy as jnp

TILE_K, TILE_M = 128, 64
EMPTY = 0b0100  # the nibble of a group of zeros


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TwoFour:
  """A matrix of which two of every four entries along `axis` are kept.

  Attributes:
    values: the kept entries in order, of half the length along `axis`.
    metadata: their positions, uint32[K/128, M/64, 256]; see the top of this file.
    axis: 0 or 1, the one that is packed, of length K.
    shape: of the unpacked matrix.
  """

  values: jax.Array
  metadata: jax.Array
  axis: int = dataclasses.field(metadata={'static': True})
  shape: tuple[int, int] = dataclasses.field(metadata={'static': True})

  @property
  def dtype(self):
    return self.values.dtype


def metadata_shape(rows: int, entries: int) -> tuple[int, int, int]:
  """Of M = `rows` rows with K = `entries` entries along the packed axis."""
  return -(-entries // TILE_K), -(-rows // TILE_M), 256


def pack_nibbles(nibbles_MxG: jax.Array) -> jax.Array:
  """Nibbles of M rows of G = K / 4 groups, as words uint32[K/128, M/64, 256]."""
  M, G = nibbles_MxG.shape
  tiles_k, tiles_m, _ = metadata_shape(M, 4 * G)
  padding = ((0, tiles_m * TILE_M - M), (0, tiles_k * TILE_K // 4 - G))
  x = jnp.pad(nibbles_MxG.astype(jnp.uint32), padding, constant_values=EMPTY)
  x = x.reshape(tiles_m * TILE_M, -1, 4)
  x = x[..., 0] | x[..., 1] << 4 | x[..., 2] << 8 | x[..., 3] << 12
  x = x.reshape(tiles_m, 4, 2, 8, tiles_k, 4, 2)  # m, w, row half, r, k, j, h
  x = x[:, :, 0] | x[:, :, 1] << 16
  return x.transpose(3, 0, 1, 5, 2, 4).reshape(tiles_k, tiles_m, 256)


def unpack_nibbles(metadata: jax.Array, rows: int, groups: int) -> jax.Array:
  """The inverse of `pack_nibbles`: uint32 (rows, groups)."""
  tiles_k, tiles_m, _ = metadata.shape
  x = metadata.reshape(tiles_k, tiles_m, 4, 2, 8, 4).transpose(1, 2, 4, 0, 5, 3)
  x = jnp.stack([x & 0xFFFF, x >> 16], axis=2)  # m, w, row half, r, k, j, h
  x = x.reshape(tiles_m * TILE_M, tiles_k * TILE_K // 16)
  x = jnp.stack([(x >> shift) & 0xF for shift in (0, 4, 8, 12)], axis=-1)
  return x.reshape(tiles_m * TILE_M, -1)[:rows, :groups]
