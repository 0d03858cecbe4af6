"""Parts of a matrix kernel alone: products without copies, and copies without products.

They say what bounds the kernels here. Each CTA has the tile of `matmul`, two warpgroups of
64 x 256, and goes through its steps as often as asked; each warpgroup writes down how many
clocks that took. Clocks count the same whatever power allows the device to run at, so that
they can be held against machine.py.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.mosaic import gpu as mgpu
from jax.experimental.mosaic.gpu import fragmented_array as fa
from jax.experimental.pallas import mosaic_gpu as plgpu

from pallas_kernels.two_four.mosaic_gpu.instructions import SWIZZLED, Instructions
from pallas_kernels.two_four.mosaic_gpu.matmul import out_scratch, store_tile
from pallas_kernels.two_four.mosaic_gpu.pipeline import (
  Grid,
  Operand,
  Tile,
  cta_count,
  tiled_kernel,
)
from pallas_kernels.two_four.packed import TILE_K, TILE_M

WARPGROUPS, TILE_N = 2, 256
ROWS = WARPGROUPS * TILE_M  # of a CTA
DENSE_K = 64  # of a dense step; a sparse one has TILE_K
KEPT = TILE_K // 2
DENSE_STAGES, SPARSE_STAGES = 3, 2  # as `dense` and `matmul` have them
MOST_COLUMNS = 8  # of tiles side by side, in `copies`


@functools.partial(jax.jit, static_argnames=('rounds', 'emulate'))
def dense(
  a: jax.Array, b: jax.Array, *, rounds: int, emulate: bool = False
) -> tuple[jax.Array, jax.Array]:
  """`rounds` times a b, summed, by every CTA; both stay in shared memory all the while.

  Args:
    a: bf16 (128, 64 stages).
    b: bf16 (64 stages, 256). A round is one step for each stage.

  Returns:
    (float32 (CTAs, 128, 256), all the same; int32 (CTAs, 2): the clocks of each warpgroup).
  """
  do, stages = Instructions(emulate), a.shape[1] // DENSE_K

  def compute(a, b, mine):
    def scope(acc):
      def steps(_, nothing):
        for stage in range(stages):
          plgpu.wgmma(acc, a.at[stage, mine], b.at[stage])
          plgpu.wgmma_wait(1)
        return nothing

      start = clock(do)
      lax.fori_loop(0, rounds, steps, None)
      plgpu.wgmma_wait(0)
      return acc[...], clock(do) - start

    return pl.run_scoped(scope, plgpu.ACC((TILE_M, TILE_N), jnp.float32))

  blocks = [(ROWS, DENSE_K), (DENSE_K, TILE_N)]
  parts = [lambda ref, k: ref.at[:, _block(k, DENSE_K)]]
  parts += [lambda ref, k: ref.at[_block(k, DENSE_K)]]
  return _resident(do, compute, stages, blocks, parts, 'ceiling_dense')(a, b)


@functools.partial(jax.jit, static_argnames=('rounds', 'in_flight', 'emulate'))
def sparse(
  values: jax.Array,
  metadata: jax.Array,
  b: jax.Array,
  *,
  rounds: int,
  in_flight: int = 0,
  emulate: bool = False,
) -> tuple[jax.Array, jax.Array]:
  """As `dense`, with the first operand packed, metadata read anew for every step.

  Args:
    values: bf16 (128, 64 stages), the kept entries of (128, 128 stages).
    metadata: uint32[stages, 2, 256].
    b: bf16 (128 stages, 256).
    in_flight: steps whose product may still run when the next one begins; `matmul` has 0.
  """
  do, stages = Instructions(emulate), metadata.shape[0]

  def compute(values, words, b, mine):
    blocks = pl.ds(lax.axis_index('wg'), 1)

    def steps(_, acc):
      for stage in range(stages):
        own = do.metadata(words.at[stage, :, blocks])
        step = values.at[stage, mine], b.at[stage], own
        acc = do.sparse_multiply(acc, *step, a_t=False, b_t=False, pending=in_flight)
      return acc

    acc = do.zeros((TILE_M, TILE_N))
    start = clock(do)
    acc = do.finished(lax.fori_loop(0, rounds, steps, acc))
    return acc, clock(do) - start

  shapes = [(ROWS, KEPT), (1, WARPGROUPS, 256), (TILE_K, TILE_N)]
  parts = [
    lambda ref, k: ref.at[:, _block(k, KEPT)],
    lambda ref, k: ref.at[_block(k, 1)],
    lambda ref, k: ref.at[_block(k, TILE_K)],
  ]
  name = f'ceiling_sparse_{in_flight}_in_flight'
  return _resident(do, compute, stages, shapes, parts, name)(values, metadata, b)


def _block(k: int, size: int):
  return pl.ds(k * size, size)


def clock(do: Instructions) -> jax.Array:
  """The clock of the multiprocessor, modulo 2^32; emulated, 0."""
  if do.emulate:
    return jnp.int32(0)
  scalar = plgpu.ShapeDtypeStruct((), jnp.int32, plgpu.Layout.WG_SPLAT(()))

  @plgpu.inline_mgpu(return_type=scalar)
  def inline(ctx):
    return fa.FragmentedArray.splat(mgpu.utils.clock(), (), is_signed=True)

  return inline()


def _resident(
  do: Instructions,
  compute: Callable,
  stages: int,
  shapes: list[tuple[int, ...]],
  parts: list[Callable],
  name: str,
) -> Callable:
  """A kernel whose operands are copied into shared memory once, stage by stage.

  Args:
    compute: (blocks of all stages, rows of the warpgroup) -> (accumulator, clocks).
    shapes: of one stage of each operand; those of three axes are metadata.
    parts: (reference, stage) -> what of the operand belongs there.
  """
  ctas, total = cta_count(do), len(shapes)

  def body(*refs):
    operands, (out, clocks) = refs[:total], refs[total : total + 2]
    *blocks, slots, arrived = refs[total + 2 :]
    cta, warpgroup = lax.axis_index('cta'), lax.axis_index('wg')

    @pl.when(warpgroup == 0)
    def _():
      for ref, block, part in zip(operands, blocks, parts):
        for stage in range(stages):
          plgpu.copy_gmem_to_smem(part(ref, stage), block.at[stage], arrived)

    plgpu.barrier_wait(arrived)
    acc, took = compute(*blocks, pl.ds(warpgroup * TILE_M, TILE_M))
    clocks[cta, warpgroup] = took
    block = cta * WARPGROUPS + warpgroup
    where = cta, jnp.int32(0), warpgroup, block, warpgroup
    store_tile(acc, Tile(*where, (), (out,), {'out': slots}))
    plgpu.wait_smem_to_gmem(0)

  scratch = [_staged(stages, shape) for shape in shapes]
  scratch.append(out_scratch(WARPGROUPS, TILE_M, TILE_N, jnp.float32))
  scratch.append(plgpu.Barrier(num_arrivals=total * stages))
  body.__name__ = name
  kernel = plgpu.kernel(
    body,
    out_type=_out_types(ctas, (ctas * ROWS, TILE_N), jnp.float32),
    scratch_types=scratch,
    grid=(ctas,),
    grid_names=('cta',),
    num_threads=WARPGROUPS,
    thread_name='wg',
    compiler_params=plgpu.CompilerParams(lowering_semantics=plgpu.LoweringSemantics.Lane),
  )

  def call(*operands):
    out, clocks = kernel(*operands)
    return out.reshape(ctas, ROWS, TILE_N), clocks

  return call


def _staged(stages: int, shape: tuple[int, ...]):
  if len(shape) == 3:
    return plgpu.SMEM((stages, *shape), jnp.uint32)
  return plgpu.SMEM((stages, *shape), jnp.bfloat16, transforms=SWIZZLED)


def _out_types(ctas: int, shape: tuple[int, ...], dtype: Any) -> tuple:
  return (
    jax.ShapeDtypeStruct(shape, dtype),
    jax.ShapeDtypeStruct((ctas, WARPGROUPS), jnp.int32),
  )


def tiles(do: Instructions, cluster: int) -> tuple[int, int]:
  """Rows and columns of tiles, one for each CTA, rows in whole clusters."""
  clusters = cta_count(do) // cluster
  columns = max(x for x in range(1, MOST_COLUMNS + 1) if clusters % x == 0)
  return clusters // columns * cluster, columns


@functools.partial(jax.jit, static_argnames=('steps', 'cluster', 'emulate'))
def copies(
  values: jax.Array,
  metadata: jax.Array,
  b: jax.Array,
  *,
  steps: int,
  cluster: int = 1,
  emulate: bool = False,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
  """The copies of `matmul` without its products, over the same operands again and again.

  Step k of a tile copies what block k % P of K needs: a working set that stays in the L2
  cache, shared among CTAs as in a product of R x C tiles.

  Args:
    values: bf16 (128 R, 64 P), with (R, C) = tiles().
    metadata: uint32[P, 2 R, 256].
    b: bf16 (128 P, 256 C).
    cluster: CTAs that share the copies of b.

  Returns:
    What the last step copied, of each operand: bf16 (128 R, 64 C), uint32[C, 2 R, 256],
    bf16 (128 R, 256 C); and the clocks of each warpgroup, int32 (R, C, 2).
  """
  do, blocks = Instructions(emulate), metadata.shape[0]
  rows, columns = values.shape[0] // ROWS, b.shape[1] // TILE_N
  if (rows, columns) != tiles(do, cluster):
    raise ValueError(f'{rows} x {columns} tiles, not {tiles(do, cluster)}')
  operands = [
    Operand(
      block=(ROWS, KEPT),
      index=lambda k: (0, lax.rem(k, blocks)),
      at=lambda ref, t: ref.at[_block(t.row, ROWS), :],
    ),
    Operand(
      block=(1, WARPGROUPS, 256),
      index=lambda k: (lax.rem(k, blocks), 0, 0),
      at=lambda ref, t: ref.at[:, _block(t.row, WARPGROUPS)],
      plain=True,
    ),
    Operand(
      block=(TILE_K, TILE_N),
      index=lambda k: (lax.rem(k, blocks), 0),
      at=lambda ref, t: ref.at[:, _block(t.column, TILE_N)],
      shared=True,
    ),
  ]

  def step(tile, k, copied, carry):
    @pl.when(k == steps - 1)
    def _():
      (a, words, b), w = copied, tile.warpgroup
      mine, block = _block(w, TILE_M), tile.row * WARPGROUPS + w
      there = _block(block, TILE_M)
      out_a, out_words, out_b, _ = tile.outputs
      plgpu.copy_smem_to_gmem(a.at[mine], out_a.at[there, _block(tile.column, KEPT)])
      plgpu.copy_smem_to_gmem(words.at[0, w], out_words.at[tile.column, block])
      plgpu.copy_smem_to_gmem(b.at[mine], out_b.at[there, _block(tile.column, TILE_N)])
      plgpu.wait_smem_to_gmem(0)

    return carry

  def compute(tile, run):
    start = clock(do)
    run(jnp.int32(0))
    tile.outputs[3][tile.row, tile.column, tile.warpgroup] = clock(do) - start

  out_type = (
    jax.ShapeDtypeStruct((rows * ROWS, columns * KEPT), jnp.bfloat16),
    jax.ShapeDtypeStruct((columns, rows * WARPGROUPS, 256), jnp.uint32),
    jax.ShapeDtypeStruct((rows * ROWS, columns * TILE_N), jnp.bfloat16),
    jax.ShapeDtypeStruct((rows, columns, WARPGROUPS), jnp.int32),
  )
  grid = Grid(rows, columns, steps, SPARSE_STAGES, WARPGROUPS, cluster)
  name = f'ceiling_copies_cluster_{cluster}'
  kernel = tiled_kernel(do, grid, operands, out_type, step, compute, {}, name)
  return kernel(values, metadata, b)
