"""The low-rank feed-forward in one kernel: what is F wide stays on the chip.

Each CTA takes 128 tokens. For each 128 features it makes h in registers, prunes its square
into shared memory and multiplies it, packed, into the accumulators of the output.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from pallas_kernels.two_four.mosaic_gpu.dense import ROWS, packed_type, squared_relu
from pallas_kernels.two_four.mosaic_gpu.instructions import SWIZZLED, Instructions
from pallas_kernels.two_four.mosaic_gpu.matmul import out_scratch, store_tile
from pallas_kernels.two_four.mosaic_gpu.pipeline import Grid, Operand, tiled_kernel
from pallas_kernels.two_four.packed import TILE_K

HALF = 64  # of the features of a step are in registers at a time
MAX_RANK = 256  # the accumulators of more do not fit in the registers


@dataclasses.dataclass(frozen=True)
class Config:
  """A CTA takes 64 * warpgroups tokens.

  The blocks of `up` and `down` are freed one by one, as soon as each is used: already with
  one stage every copy runs beside the other product.
  """

  warpgroups: int = 2
  stages: int = 1

  @property
  def tile_m(self) -> int:
    return self.warpgroups * ROWS


@functools.partial(jax.jit, static_argnames=('prune', 'keep', 'config', 'emulate'))
def feed_forward(
  s: jax.Array,
  up: jax.Array,
  down: jax.Array,
  *,
  prune: bool = True,
  keep: bool = False,
  config: Config = Config(),
  emulate: bool = False,
):
  """prune(relu(s up^T)^2) down.

  Args:
    s: bf16 (T, R), T a multiple of 8, R of 64 and at most 256.
    up: bf16 (F, R), F a multiple of 128.
    down: bf16 (F, N), N a multiple of 64 and at most 256.
    prune: False for a control: nothing is dropped, all products are dense.
    keep: write packed z for a backward pass as well.

  Returns:
    bf16 (T, N); with `keep` (that, values (T, F/2), metadata uint32[F/128, T/64, 256]).
  """
  if keep and not prune:
    raise ValueError('keep=True: needs prune=True, there is no packed z without')
  (T, R), (F, N) = s.shape, down.shape
  do = Instructions(emulate)

  def step(tile, k, blocks, acc):
    up, down, up_ready, down_ready, up_free, down_free = blocks
    plgpu.barrier_wait(up_ready)
    if keep:
      plgpu.wait_smem_to_gmem(0, wait_read_only=True)  # of the features before
    do.meet()
    for column in range(0, TILE_K, HALF):
      h = do.multiply(tile.mine('s'), up.at[pl.ds(column, HALF)])
      if prune:
        packed = tile.mine('values'), tile.mine('metadata')
        do.prune(h.astype(jnp.bfloat16), *packed, 'relu2', column=column)
      else:
        _multiply_dense(do, acc, squared_relu(h), tile, down, column, down_ready)
    plgpu.barrier_arrive(up_free)
    if prune:
      plgpu.commit_smem()
      plgpu.barrier_wait(down_ready)
      packed = tile.mine('values'), down, tile.mine('metadata')
      acc = do.sparse_multiply(acc, *packed, a_t=False, b_t=False)
    plgpu.barrier_arrive(down_free)
    if keep:
      _keep(tile, k)
    return acc

  def compute(tile, run):
    rows = pl.ds(tile.block * ROWS, ROWS)
    plgpu.copy_gmem_to_smem(tile.inputs[0].at[rows], tile.mine('s'), tile.mine('loaded'))
    plgpu.barrier_wait(tile.mine('loaded'))
    finish = lambda acc: store_tile(acc.astype(jnp.bfloat16), tile)
    if prune:
      finish(run(do.zeros((ROWS, N))))
    else:

      def scope(acc):
        run(acc)
        finish(acc[...])

      pl.run_scoped(scope, plgpu.ACC((ROWS, N), jnp.float32))

  weights = [
    Operand(block=(TILE_K, width), index=lambda k: (k, 0), at=lambda ref, tile: ref)
    for width in (R, N)
  ]
  out_type = (jax.ShapeDtypeStruct((T, N), jnp.bfloat16),)
  out_type += packed_type(T, F) if keep else ()
  grid = Grid(
    pl.cdiv(T, config.tile_m),
    1,
    pl.cdiv(F, TILE_K),
    config.stages,
    config.warpgroups,
    barriers=True,
  )
  scratch = _scratch(config.warpgroups, R, N, prune)
  name = 'two_four_feed_forward' if prune else 'dense_feed_forward'
  kernel = tiled_kernel(do, grid, weights, out_type, step, compute, scratch, name)
  out = kernel(up, down, s)
  return tuple(out) if keep else out[0]


def _scratch(warpgroups: int, R: int, N: int, prune: bool) -> dict:
  swizzled = lambda *shape: plgpu.SMEM(shape, jnp.bfloat16, transforms=SWIZZLED)
  scratch = {
    's': swizzled(warpgroups, ROWS, R),
    'loaded': plgpu.Barrier(num_barriers=warpgroups),
    'out': out_scratch(warpgroups, ROWS, N, jnp.bfloat16, slots=1),
  }
  if prune:
    scratch['values'] = swizzled(warpgroups, ROWS, TILE_K // 2)
    scratch['metadata'] = plgpu.SMEM((warpgroups, 1, 256), jnp.uint32)
  else:
    scratch['y'] = swizzled(warpgroups, ROWS, HALF)
  return scratch


def _multiply_dense(do, acc, y: jax.Array, tile, down, column: int, down_ready) -> None:
  """Adds y times its rows of `down` to acc, y being half of the features of a step."""
  do.meet()
  tile.mine('y')[...] = y
  plgpu.commit_smem()
  if column == 0:
    plgpu.barrier_wait(down_ready)
  plgpu.wgmma(acc, tile.mine('y'), down.at[pl.ds(column, HALF)])
  plgpu.wgmma_wait(0)


def _keep(tile, k: jax.Array) -> None:
  """Writes the packed features number k of this warpgroup's tokens."""
  _, values, metadata = tile.outputs
  half = TILE_K // 2
  there = values.at[pl.ds(tile.block * ROWS, ROWS), pl.ds(k * half, half)]
  plgpu.copy_smem_to_gmem(tile.mine('values'), there)
  plgpu.copy_smem_to_gmem(tile.mine('metadata'), metadata.at[pl.ds(k, 1), tile.block])
