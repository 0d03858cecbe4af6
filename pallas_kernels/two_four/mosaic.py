"""The operations by the kernels of mosaic_gpu/: tiles chosen, shapes padded to them.

Every function has the contract of its namesake in reference.py, for bf16.
"""

from typing import Any

import jax

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
FEATURES = TILE_K  # a feed-forward has a multiple of these


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
    padded(y, (2 * TILE_M, 2 * TILE_M)),
    along=along,
    rule=rule,
    activation=activation,
    config=tuned_config(f'compress {along} {rule}', {'T': T, 'F': F}, packing.Config()),
    emulate=is_emulated(),
  )


def matmul(packed: TwoFour, b: jax.Array, transpose_b: bool, out_dtype: Any) -> jax.Array:
  M, K = packed.shape if packed.axis == 1 else packed.shape[::-1]
  N = b.shape[0 if transpose_b else 1]
  config = tuned_config('matmul', {'M': M, 'K': K, 'N': N}, matmul_config(N))
  rows = config.tile_m * config.cluster
  values = padded(packed.values, _order(packed.axis == 1, rows, TILE_K // 2))
  metadata = padded(packed.metadata, (1, rows // TILE_M, 1), EMPTY_WORD)
  b = padded(b, _order(not transpose_b, TILE_K, config.tile_n))
  out = sparse.matmul(
    values,
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
  x, w = _dense_operands(x, w, transpose_w, config)
  packed = dense.up_compress(x, w, w_t=transpose_w, config=config, emulate=is_emulated())
  return _cut(*packed, T, F)


def gated_backward(g: jax.Array, w: jax.Array, z: TwoFour, transpose_w: bool) -> TwoFour:
  (T, F), K = z.shape, g.shape[1]
  config = tuned_config('gated_backward', {'T': T, 'K': K, 'F': F}, dense_config(F, K))
  g, w = _dense_operands(g, w, transpose_w, config)
  values = padded(z.values, (config.rows, config.tile_n // 2))
  blocks = config.tile_n // TILE_K, config.rows // TILE_M, 1
  metadata = padded(z.metadata, blocks, EMPTY_WORD)
  values = dense.gated_backward(
    g, w, values, metadata, w_t=transpose_w, config=config, emulate=is_emulated()
  )
  return TwoFour(values[:T, : F // 2], z.metadata, 1, z.shape)


def weight_gradient(z: TwoFour, g: jax.Array, out_dtype: Any) -> jax.Array:
  (T, F), N = z.shape, g.shape[1]
  default = weight_gradient_config(T, F, N)
  config = tuned_config('weight_gradient', {'T': T, 'F': F, 'N': N}, default)
  rows = TILE_M * config.splits
  values = padded(z.values, (rows, TILE_K // 2))
  metadata = padded(z.metadata, (1, config.splits, 1), EMPTY_WORD)
  g = padded(g, (rows, config.tile_n))
  out = gradient.weight_gradient(
    values, metadata, g, out_dtype=out_dtype, config=config, emulate=is_emulated()
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
  s = padded(s, (config.tile_m, 64))
  up, down = padded(up.T, (TILE_K, 64)), padded(down, (TILE_K, 64))
  out = fused.feed_forward(s, up, down, keep=keep, config=config, emulate=is_emulated())
  if not keep:
    return out[:T, :N]
  return out[0][:T, :N], _cut(*out[1:], T, F)


def _order(straight: bool, first: int, second: int) -> tuple[int, int]:
  return (first, second) if straight else (second, first)


def _dense_operands(x, w, transpose_w: bool, config: dense.Config):
  x = padded(x, (config.rows, dense.K_STEP))
  return x, padded(w, _order(not transpose_w, dense.K_STEP, config.tile_n))


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


def matmul_config(N: int) -> sparse.Config:
  tile_n = _widest(N, (256, 192, 128, 64))
  config = sparse.Config(tile_n=tile_n)
  stage = config.tile_m * TILE_K + config.tile_m // TILE_M * 1024 + 2 * TILE_K * tile_n
  out = config.warpgroups * config.slots * config.warpgroup_rows * 128
  stages = min(4, (SHARED_MEMORY - out) // stage)
  return sparse.Config(tile_n=tile_n, stages=stages)


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
  """Tokens are split until there are tiles for most of 132 multiprocessors."""
  tile_n = _widest(N, (256, 128, 64))
  tiles, splits = -(-F // TILE_K) * (-(-N // tile_n)), 1
  while tiles * splits * 2 <= 132 and T // (2 * splits) >= 16 * TILE_M:
    splits *= 2
  return gradient.Config(tile_n=tile_n, splits=splits)


def feed_forward_config(R: int, N: int) -> fused.Config:
  return fused.Config(stages=2 if max(R, N) <= 128 else 1)
