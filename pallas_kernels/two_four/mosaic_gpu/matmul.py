"""The product of a 2:4 matrix and a dense one on sparse tensor cores."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from pallas_kernels.two_four.mosaic_gpu.instructions import Instructions
from pallas_kernels.two_four.mosaic_gpu.pipeline import Grid, Operand, tiled_kernel
from pallas_kernels.two_four.packed import TILE_K, TILE_M


@dataclasses.dataclass(frozen=True)
class Config:
  """Tile and pipeline of `matmul`.

  A CTA makes warpgroups * warpgroup_rows x tile_n of the output, 128 x 256 by default.
  """

  warpgroups: int = 2
  warpgroup_rows: int = 64
  tile_n: int = 256
  stages: int = 2
  cluster: int = 1  # CTAs that share the copies of B
  snake: int = 8
  slots: int = 2  # through which a warpgroup writes its output
  metadata_first: bool = False  # read before the other blocks of a step are there
  selector: int = 0  # which two lanes of a quad supply metadata; all four hold the same

  @property
  def tile_m(self) -> int:
    return self.warpgroups * self.warpgroup_rows


@functools.partial(
  jax.jit, static_argnames=('axis', 'b_t', 'out_dtype', 'config', 'emulate')
)
def matmul(
  values: jax.Array,
  metadata: jax.Array,
  b: jax.Array,
  *,
  axis: int = 1,
  b_t: bool = False,
  out_dtype: Any = jnp.bfloat16,
  config: Config = Config(),
  emulate: bool = False,
) -> jax.Array:
  """(M, K) x (K, N) -> (M, N), where the first is packed along K.

  Args:
    values: bf16 (M, K/2) for axis=1, (K/2, M) for axis=0, in blocks of 8 x 64,
      M at least 16 and config.tile_n at most N: see mosaic.py.
    metadata: uint32[K/128, M/64, 256], of whole tiles of config.tile_m * config.cluster.
    b: bf16 (K, N), or (N, K) with `b_t`, N and K multiples of 64.
  """
  a_t = axis == 0
  M = values.shape[1 if a_t else 0]
  N, K = b.shape if b_t else b.shape[::-1]
  c, tile_m = config, config.tile_m
  rows = lambda tile: pl.ds(tile.row * tile_m, tile_m)
  columns = lambda tile: pl.ds(tile.column * c.tile_n, c.tile_n)
  half = TILE_K // 2
  a_operand = Operand(
    block=(half, tile_m) if a_t else (tile_m, half),
    index=(lambda k: (k, 0)) if a_t else (lambda k: (0, k)),
    at=lambda ref, t: ref.at[:, rows(t)] if a_t else ref.at[rows(t), :],
  )
  metadata_operand = Operand(
    block=(1, tile_m // TILE_M, 256),
    index=lambda k: (k, 0, 0),
    at=lambda ref, t: ref.at[:, pl.ds(t.row * (tile_m // TILE_M), tile_m // TILE_M)],
    plain=True,
  )
  b_operand = Operand(
    block=(c.tile_n, TILE_K) if b_t else (TILE_K, c.tile_n),
    index=(lambda k: (0, k)) if b_t else (lambda k: (k, 0)),
    at=lambda ref, t: ref.at[columns(t), :] if b_t else ref.at[:, columns(t)],
    shared=True,
  )
  do = Instructions(emulate, c.selector)

  def step(tile, _, blocks, acc):
    a, words, b, *ready = blocks
    mine = pl.ds(tile.warpgroup * c.warpgroup_rows, c.warpgroup_rows)
    blocks_of_64 = c.warpgroup_rows // TILE_M
    for barrier in ready[1:2]:
      plgpu.barrier_wait(barrier)
    words = do.metadata(words.at[:, pl.ds(tile.warpgroup * blocks_of_64, blocks_of_64)])
    for barrier in ready[::2]:
      plgpu.barrier_wait(barrier)
    a = a.at[:, mine] if a_t else a.at[mine]
    return do.sparse_multiply(acc, a, b, words, a_t=a_t, b_t=b_t)

  def compute(tile, run):
    acc = run(do.zeros((c.warpgroup_rows, c.tile_n)))
    store_tile(acc.astype(out_dtype), tile)

  kernel = tiled_kernel(
    do,
    Grid(
      metadata.shape[1] * TILE_M // tile_m,
      pl.cdiv(N, c.tile_n),
      pl.cdiv(K, TILE_K),
      c.stages,
      c.warpgroups,
      c.cluster,
      c.snake,
      waits=c.metadata_first,
    ),
    [a_operand, metadata_operand, b_operand],
    jax.ShapeDtypeStruct((M, N), out_dtype),
    step,
    compute,
    {'out': out_scratch(c.warpgroups, c.warpgroup_rows, c.tile_n, out_dtype, c.slots)},
    'two_four_matmul',
  )
  return kernel(values, metadata, b)


def out_scratch(warpgroups: int, rows: int, tile_n: int, dtype: Any, slots: int = 2):
  """Slots of 128-byte rows for each warpgroup, through which `store_tile` goes."""
  width = 128 // jnp.dtype(dtype).itemsize
  transforms = (plgpu.TilingTransform((8, width)), plgpu.SwizzleTransform(128))
  slots = min(slots, tile_n // width)
  return plgpu.SMEM((warpgroups, slots, rows, width), dtype, transforms=transforms)


def store_tile(x: jax.Array, tile: Any) -> None:
  """Writes the rows of a warpgroup to output 0, one slot of columns after the other."""
  _, slots, rows, width = tile.scratch['out'].shape
  first, (_, tile_n) = tile.block * rows, x.shape
  blocks = tile_n // width
  for number in range(blocks):
    slot = tile.mine('out').at[number % slots]
    # The tile before may have ended on the very slot that this one begins with.
    pending = 0 if number == 0 and blocks % slots else slots - 1
    plgpu.wait_smem_to_gmem(pending, wait_read_only=True)
    slot[...] = x[:, number * width : (number + 1) * width]
    plgpu.commit_smem()
    columns = pl.ds(tile.column * tile_n + number * width, width)
    plgpu.copy_smem_to_gmem(slot, tile.outputs[0].at[pl.ds(first, rows), columns])
