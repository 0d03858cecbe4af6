"""The low-rank feed-forward in one kernel: what is F wide stays on the chip.

Each CTA takes 128 tokens. For each 128 features it makes h in registers, prunes its square
into shared memory and multiplies it, packed, into the accumulators of the output.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from pallas_kernels.two_four.mosaic_gpu.dense import ROWS, packed_type, squared_relu
from pallas_kernels.two_four.mosaic_gpu.instructions import SWIZZLED, Instructions
from pallas_kernels.two_four.mosaic_gpu.matmul import out_scratch, store_tile
from pallas_kernels.two_four.mosaic_gpu.pipeline import Grid, Operand, tiled_kernel
from pallas_kernels.two_four.packed import TILE_K

HALF = 64  # of the features of a step of the control are in shared memory at a time
MAX_RANK = 256  # the accumulators of more do not fit in the registers


@dataclasses.dataclass(frozen=True)
class Config:
  """A CTA takes 64 * warpgroups tokens.

  The blocks of `up`, in parts of its rank, and of `down` are freed one by one, as soon as
  each is used: already with one stage every copy runs beside other products.
  """

  warpgroups: int = 2
  stages: int = 1
  cluster: int = 1  # CTAs that share the copies of the weights
  in_turns: bool = True  # one warpgroup makes h while another prunes, never two at once

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
  """prune(relu(s up)^2) down.

  Args:
    s: bf16 (T, R), T a multiple of 8, R of 64 and at most 256.
    up: bf16 (R, F), F a multiple of 128.
    down: bf16 (F, N), N a multiple of 64 and at most 256.
    prune: False for a control: nothing is dropped, all products are dense.
    keep: write packed z for a backward pass as well.

  Returns:
    bf16 (T, N); with `keep` (that, values and metadata as of dense.up_compress).
  """
  if keep and not prune:
    raise ValueError('keep=True: needs prune=True, there is no packed z without')
  (T, R), (F, N) = s.shape, down.shape
  do, parts, steps = Instructions(emulate), R // part_of(R), pl.cdiv(F, TILE_K)

  def step(tile, k, blocks, acc):
    *up, down = blocks[: parts + 1]
    *up_ready, down_ready = blocks[parts + 1 : 2 * (parts + 1)]
    *up_free, down_free = blocks[2 * (parts + 1) :]
    h = None
    if config.in_turns:
      plgpu.barrier_wait(tile.mine('turn'))
    for number in range(parts):
      plgpu.barrier_wait(up_ready[number])
      rank = pl.ds(number * (R // parts), R // parts)
      h = do.multiply(h, tile.mine('s').at[:, rank], up[number])
      release(up_free[number])
    if config.in_turns:
      pass_turn(tile, k < steps - 1)
    if keep:
      plgpu.wait_smem_to_gmem(0, wait_read_only=True)  # of the features before
    if prune:
      do.meet()
      packed = tile.mine('values'), tile.mine('metadata')
      do.prune(h.astype(jnp.bfloat16), *packed, 'relu2')
      plgpu.commit_smem()
      plgpu.barrier_wait(down_ready)
      words = do.metadata(tile.mine('metadata'))
      acc = do.sparse_multiply(acc, tile.mine('values'), down, words, a_t=False, b_t=False)
    else:
      _multiply_dense(do, acc, squared_relu(h), tile, down, down_ready)
    release(down_free)
    if keep:
      _keep(tile, k)
    return acc

  def release(free):
    if config.cluster > 1:
      do.meet()  # only one warp tells the other CTAs that a block is free
    plgpu.barrier_arrive(free)

  def pass_turn(tile, goes_on):
    """To the next warpgroup; from the last one to the first if there is another round."""
    following = lax.rem(tile.warpgroup + 1, config.warpgroups)

    @pl.when((following != 0) | goes_on)
    def _():
      plgpu.barrier_arrive(tile.scratch['turn'].at[following])

  def compute(tile, run):
    if config.in_turns:
      pl.when(tile.warpgroup == config.warpgroups - 1)(lambda: pass_turn(tile, True))
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

  width = R // parts
  up_operands = [
    Operand(
      block=(width, TILE_K),
      index=lambda k: (0, k),
      at=lambda ref, tile, part=part: ref.at[pl.ds(part * width, width)],
      shared=True,
    )
    for part in range(parts)
  ]
  down_operand = Operand(
    block=(TILE_K, N), index=lambda k: (k, 0), at=lambda ref, tile: ref, shared=True
  )
  out_type = (jax.ShapeDtypeStruct((T, N), jnp.bfloat16),)
  out_type += packed_type(T, F) if keep else ()
  grid = Grid(
    pl.cdiv(T, config.tile_m * config.cluster) * config.cluster,
    1,
    steps,
    config.stages,
    config.warpgroups,
    config.cluster,
    waits=True,
    frees=True,
  )
  scratch = _scratch(config.warpgroups, R, N, prune)
  name = 'two_four_feed_forward' if prune else 'dense_feed_forward'
  operands = [*up_operands, down_operand]
  kernel = tiled_kernel(do, grid, operands, out_type, step, compute, scratch, name)
  out = kernel(*[up] * parts, down, s)
  return tuple(out) if keep else out[0]


def _scratch(warpgroups: int, R: int, N: int, prune: bool) -> dict:
  swizzled = lambda *shape: plgpu.SMEM(shape, jnp.bfloat16, transforms=SWIZZLED)
  scratch = {
    's': swizzled(warpgroups, ROWS, R),
    'loaded': plgpu.Barrier(num_barriers=warpgroups),
    'turn': plgpu.Barrier(num_barriers=warpgroups),
    'out': out_scratch(warpgroups, ROWS, N, jnp.bfloat16, slots=1),
  }
  if prune:
    scratch['values'] = swizzled(warpgroups, ROWS, TILE_K // 2)
    scratch['metadata'] = plgpu.SMEM((warpgroups, 1, 256), jnp.uint32)
  else:
    scratch['y'] = swizzled(warpgroups, ROWS, HALF)
  return scratch


def part_of(R: int) -> int:
  """The part of the rank that is copied at once."""
  return math.gcd(R, 128)


def _multiply_dense(do, acc, y: jax.Array, tile, down, down_ready) -> None:
  """Adds y times `down` to acc, by halves of y: there is no room for all of it."""
  plgpu.barrier_wait(down_ready)
  for column in range(0, TILE_K, HALF):
    do.meet()
    tile.mine('y')[...] = y[:, column : column + HALF]
    plgpu.commit_smem()
    plgpu.wgmma(acc, tile.mine('y'), down.at[pl.ds(column, HALF)])
    plgpu.wgmma_wait(0)


def _keep(tile, k: jax.Array) -> None:
  """Writes the packed features number k of this warpgroup's tokens."""
  _, values, metadata = tile.outputs
  half = TILE_K // 2
  there = values.at[pl.ds(tile.block * ROWS, ROWS), pl.ds(k * half, half)]
  plgpu.copy_smem_to_gmem(tile.mine('values'), there)
  plgpu.copy_smem_to_gmem(tile.mine('metadata'), metadata.at[pl.ds(k, 1), tile.block])
