"""The gradient of a weight that met z: a product over tokens with z packed along features.

The sparse tensor cores contract the packed axis only, so z is unpacked, but no further out
than shared memory: what is read is 9/16 of the dense matrix, and nothing F wide is written.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from pallas_kernels.two_four.mosaic_gpu.instructions import SWIZZLED, Instructions
from pallas_kernels.two_four.mosaic_gpu.matmul import out_scratch, store_tile
from pallas_kernels.two_four.mosaic_gpu.pipeline import Grid, Operand, tiled_kernel
from pallas_kernels.two_four.packed import TILE_K, TILE_M

WARPGROUPS = 2  # each unpacks and takes 64 of the 128 features of a tile


@dataclasses.dataclass(frozen=True)
class Config:
  """A CTA makes 128 x tile_n of the (F, N) gradient from about T / splits tokens.

  Splitting the tokens keeps all multiprocessors busy where F N is small; the parts are
  added up in float32 afterwards. What a part has beyond T, copies leave zero.
  """

  tile_n: int = 256
  stages: int = 4
  splits: int = 1
  snake: int = 8
  in_flight: int = 1  # z of a step is unpacked while the product of the one before runs


@functools.partial(jax.jit, static_argnames=('out_dtype', 'config', 'emulate'))
def weight_gradient(
  values: jax.Array,
  metadata: jax.Array,
  g: jax.Array,
  *,
  out_dtype: Any = jnp.float32,
  config: Config = Config(),
  emulate: bool = False,
) -> jax.Array:
  """z^T g, with z (T, F) packed along F.

  Args:
    values: bf16 (T, F/2), T a multiple of 8, F of 128.
    metadata: uint32[F/128, T/64, 256].
    g: bf16 (T, N), N a multiple of 64 and at least config.tile_n.

  Returns:
    (F, N), accumulated in float32.
  """
  half, N, c = values.shape[1], g.shape[1], config
  F, do, features = 2 * half, Instructions(emulate), metadata.shape[0]
  words = pl.cdiv(metadata.shape[1], c.splits)
  tokens = words * TILE_M
  feature = lambda tile: tile.row % features
  split = lambda tile: tile.row // features
  columns = lambda tile: pl.ds(tile.column * c.tile_n, c.tile_n)
  operands = [
    Operand(
      block=(TILE_M, TILE_K // 2),
      index=lambda k: (k, 0),
      at=lambda ref, t: ref.at[
        pl.ds(split(t) * tokens, tokens), pl.ds(feature(t) * TILE_K // 2, TILE_K // 2)
      ],
    ),
    Operand(
      block=(1, 1, 256),
      index=lambda k: (0, k, 0),
      at=lambda ref, t: ref.at[pl.ds(feature(t), 1), pl.ds(split(t) * words, words)],
      plain=True,
    ),
    Operand(
      block=(TILE_M, c.tile_n),
      index=lambda k: (k, 0),
      at=lambda ref, t: ref.at[pl.ds(split(t) * tokens, tokens), columns(t)],
    ),
  ]

  grid = Grid(
    features * c.splits,
    pl.cdiv(N, c.tile_n),
    words,
    c.stages,
    WARPGROUPS,
    snake=c.snake,
    in_flight=c.in_flight,
  )

  def step(tile, k, blocks, acc):
    values, metadata, g = blocks
    # One slot for each product that runs; of the one that read this slot last, every warp
    # has waited for its own share.
    dense = tile.mine('dense').at[k % (grid.running + 1)]
    do.meet()
    do.spread(values, metadata, dense, tile.warpgroup)
    plgpu.commit_smem()
    plgpu.wgmma(acc, dense.transpose((1, 0)), g)
    if not grid.running:
      plgpu.wgmma_wait(0)
    return acc

  def compute(tile, run):
    def scope(acc):
      run(acc)
      # A part is whole: what a tile has beyond F is not written.
      here = feature(tile) * WARPGROUPS + tile.warpgroup
      out = tile.outputs[0]
      part = dataclasses.replace(tile, block=here, outputs=(out.at[split(tile)],))
      store_tile(acc[...].astype(out.dtype), part)

    pl.run_scoped(scope, plgpu.ACC((TILE_K // WARPGROUPS, c.tile_n), jnp.float32))

  parts = jnp.dtype(out_dtype) if c.splits == 1 else jnp.float32
  dense = (WARPGROUPS, grid.running + 1, TILE_M, TILE_K // WARPGROUPS)
  scratch = {
    'dense': plgpu.SMEM(dense, jnp.bfloat16, transforms=SWIZZLED),
    'out': out_scratch(WARPGROUPS, TILE_K // WARPGROUPS, c.tile_n, parts, slots=1),
  }
  kernel = tiled_kernel(
    do,
    grid,
    operands,
    jax.ShapeDtypeStruct((c.splits, F, N), parts),
    step,
    compute,
    scratch,
    'two_four_weight_gradient',
  )
  out = kernel(values, metadata, g)
  return out.sum(axis=0, dtype=jnp.float32).astype(out_dtype)
