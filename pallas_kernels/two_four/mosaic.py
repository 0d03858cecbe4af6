"""The operations by the kernels of mosaic_gpu/: tiles chosen, shapes padded to blocks.

Every function has the contract of its namesake in reference.py, for bf16. Matrices are
padded to blocks of 8 x 64, by which copies swizzle them, not to tiles: what a copy reads
beyond a matrix is zero, and what it writes there is dropped.
"""

from typing import Any

import jax
from jax.experimental import pallas as pl

from pallas_kernels.two_four.dispatch import is_emulated, padded, tuned_config
from pallas_kernels.two_four.mosaic_gpu import (
  compress as packing,
)
from pallas_kernels.two_four.mosaic_gpu import (
  dense,
)
from pallas_kernels.two_four.mosaic_gpu import (
  feed_forward as fused,
)
from pallas_kernels.two_four.mosaic_gpu import (
  matmul as sparse,
)
from pallas_kernels.two_four.mosaic_gpu import (
  weight_gradient as gradient,
)
from pallas_kernels.two_four.packed import TILE_K, TILE_M, TwoFour, metadata_shape

EMPTY_WORD = 0x44444444  # of groups of zeros
SHARED_MEMORY = 232_448 - 4096  # bytes of a CTA, less barriers and alignment
MAX_RANK = fused.MAX_RANK
MULTIPROCESSORS = 132  # of an H100 or H200
FEATURES = TILE_K  # of which F is a multiple: so that its packed half is one of 64


def compress(y, axis: int, rule: str, activation: str | None, key: None, scale: None):
  """Of the rules in op.KERNEL_RULES, which take neither key nor scale."""
  packed = _compress(y, 'features' if axis == 1 else 'tokens', rule, activation)
  return _cut(*packed, *y.shape) if axis == 1 else _cut_tokens(*packed, *y.shape)


def compress_both(y: jax.Array, rule: str, activation: str | None):
  features, tokens = _compress(y, 'both', rule, activation)
  return _cut(*features, *y.shape), _cut_tokens(*tokens, *y.shape)


def _compress(y: jax.Array, along: str, rule: str, activation: str | None):
  T, F = y.shape
  return packing.compress(
    padded(y, (16, FEATURES)),
    along=along,
    rule=rule,
    activation=activation,
    config=tuned_config(f'compress {along} {rule}', {'T': T, 'F': F}, packing.Config()),
    emulate=is_emulated(),
  )


def matmul(packed: TwoFour, b: jax.Array, transpose_b: bool, out_dtype: Any) -> jax.Array:
  M, K = packed.shape if packed.axis == 1 else packed.shape[::-1]
  N = b.shape[0 if transpose_b else 1]
  config = tuned_config('matmul', {'M': M, 'K': K, 'N': N}, matmul_config(M, N))
  rows = config.tile_m * config.cluster
  # Copies fill with zeros, which the instruction does not take for positions.
  metadata = padded(packed.metadata, (1, rows // TILE_M, 1), EMPTY_WORD)
  b = padded(b, (64, 64))
  out = sparse.matmul(
    _swizzled(packed.values),
    metadata,
    b,
    axis=packed.axis,
    b_t=transpose_b,
    out_dtype=out_dtype,
    config=config,
    emulate=is_emulated(),
  )
  return out[:M, :N]


def up_compress(x: jax.Array, w: jax.Array, transpose_w: bool) -> TwoFour:
  (T, K), F = x.shape, w.shape[0 if transpose_w else 1]
  config = tuned_config('up_compress', {'T': T, 'K': K, 'F': F}, dense_config(F, K))
  x, w = _dense_operands(x, w, transpose_w)
  packed = dense.up_compress(x, w, w_t=transpose_w, config=config, emulate=is_emulated())
  return _cut(*packed, T, F)


def gated_backward(g: jax.Array, w: jax.Array, z: TwoFour, transpose_w: bool) -> TwoFour:
  (T, F), K = z.shape, g.shape[1]
  config = tuned_config('gated_backward', {'T': T, 'K': K, 'F': F}, dense_config(F, K))
  g, w = _dense_operands(g, w, transpose_w)
  values = dense.gated_backward(
    g,
    w,
    _swizzled(z.values),
    z.metadata,
    w_t=transpose_w,
    config=config,
    emulate=is_emulated(),
  )
  return TwoFour(values[:T, : F // 2], z.metadata, 1, z.shape)


def weight_gradient(z: TwoFour, g: jax.Array, out_dtype: Any) -> jax.Array:
  (T, F), N = z.shape, g.shape[1]
  default = weight_gradient_config(T, F, N)
  config = tuned_config('weight_gradient', {'T': T, 'F': F, 'N': N}, default)
  values, g = _swizzled(z.values), _swizzled(g)
  out = gradient.weight_gradient(
    values, z.metadata, g, out_dtype=out_dtype, config=config, emulate=is_emulated()
  )
  return out[:F, :N]


def feed_forward(s: jax.Array, up: jax.Array, down: jax.Array, keep: bool):
  """Fused for ranks up to MAX_RANK, else `up_compress` and `matmul`."""
  (T, R), (F, N) = s.shape, down.shape
  if max(R, N) > MAX_RANK:
    z = up_compress(s, up, False)
    out = matmul(z, down, False, s.dtype)
    return (out, z) if keep else out
  shape = {'T': T, 'R': R, 'F': F, 'N': N}
  config = tuned_config('feed_forward', shape, feed_forward_config(R, N))
  s = _swizzled(s)
  up, down = padded(up, (64, FEATURES)), padded(down, (FEATURES, 64))
  out = fused.feed_forward(s, up, down, keep=keep, config=config, emulate=is_emulated())
  if not keep:
    return out[:T, :N]
  return out[0][:T, :N], _cut(*out[1:], T, F)


def _swizzled(x: jax.Array) -> jax.Array:
  """In whole blocks of 8 x 64, by which copies swizzle. What is F wide here always is.

  Of two blocks of rows at least: a copy drops the index of an axis of one, so that what
  lies beyond the only block would be read and written in it.
  """
  return padded(x, (16 if x.shape[0] <= 8 else 8, 64))


def _order(straight: bool, first: int, second: int) -> tuple[int, int]:
  return (first, second) if straight else (second, first)


def _dense_operands(x, w, transpose_w: bool):
  x = _swizzled(x)
  return x, padded(w, _order(not transpose_w, dense.K_STEP, FEATURES))


def _cut(values: jax.Array, metadata: jax.Array, T: int, F: int) -> TwoFour:
  tiles_k, tiles_m, _ = metadata_shape(T, F)
  return TwoFour(values[:T, : F // 2], metadata[:tiles_k, :tiles_m], 1, (T, F))


def _cut_tokens(values: jax.Array, metadata: jax.Array, T: int, F: int) -> TwoFour:
  tiles_k, tiles_m, _ = metadata_shape(F, T)
  return TwoFour(values[: T // 2, :F], metadata[:tiles_k, :tiles_m], 0, (T, F))


def _widest(size: int, choices: tuple[int, ...]) -> int:
  """The widest tile that adds no more padding than the narrowest does."""
  least = choices[-1]
  size += -size % least
  return next(tile for tile in choices if size % tile == 0)


def matmul_config(M: int, N: int) -> sparse.Config:
  """Two CTAs share the copies of B: 6 % less time at K = 4224, N = 256 on an H200.

  (tiles_e273e12.json: 159.6 and 170.0 us for the four layouts.)
  """
  tile_n = _widest(N, (256, 192, 128, 64))
  config = sparse.Config(tile_n=tile_n)
  stage = config.tile_m * TILE_K + config.tile_m // TILE_M * 1024 + 2 * TILE_K * tile_n
  out = config.warpgroups * config.slots * config.warpgroup_rows * 128
  stages = min(4, (SHARED_MEMORY - out) // stage)
  cluster = 1 if pl.cdiv(M, config.tile_m) % 2 else 2
  return sparse.Config(tile_n=tile_n, stages=stages, cluster=cluster)


# Of a dense product whose weights stay in shared memory, the first that fits there.
RESIDENT = tuple(
  dense.Config(
    warpgroups=warpgroups,
    tile_n=TILE_K,
    stages=stages,
    resident=True,
    chunk=chunk,
    buffers=buffers,
  )
  for warpgroups, stages, chunk, buffers in ((3, 2, 128, 2), (3, 2, 128, 1), (2, 3, 64, 2))
)


def resident_bytes(K: int, c: dense.Config) -> int:
  """Of shared memory: weights, rings, and a packed tile for each part."""
  ring = c.stages * dense.ROWS * dense.chunk_of(K, c.chunk) * 2
  packed = dense.ROWS * c.tile_n + c.tile_n // TILE_K * 1024
  return 2 * K * c.tile_n + c.warpgroups * ring + c.parts * packed


def dense_config(F: int, K: int) -> dense.Config:
  K += -K % dense.K_STEP
  for config in RESIDENT:
    if resident_bytes(K, config) <= SHARED_MEMORY:
      return config
  tile_n = _widest(F, (256, 128))
  return dense.Config(tile_n=tile_n, stages=3 if tile_n == 256 else 4)


def weight_gradient_config(T: int, F: int, N: int) -> gradient.Config:
  """With as many parts of the tokens as keep the multiprocessors busy.

  The time of a tile is counted as that of its steps and of eight more, for its start, its
  end and the sum of the parts: an H200's times (tiles_e273e12.json) say 4 at N = 128, 15 at
  N = 256.
  """
  tile_n = _widest(N, (256, 128, 64))
  tiles, steps = pl.cdiv(F, TILE_K) * pl.cdiv(N, tile_n), pl.cdiv(T, TILE_M)
  rounds = lambda splits: pl.cdiv(tiles * splits, MULTIPROCESSORS)
  time = lambda splits: rounds(splits) * (pl.cdiv(steps, splits) + 8)
  return gradient.Config(tile_n=tile_n, splits=min(range(1, 17), key=time))


def feed_forward_config(R: int, N: int) -> fused.Config:
  return fused.Config(stages=2 if max(R, N) <= 128 else 1)
