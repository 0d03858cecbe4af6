"""Dense products with few steps: the weights stay in shared memory and rows pass by them.

A step of a product with a short K is soon over, and an epilogue that prunes or gates takes
about as long as all steps together: with streamed weights `gated_backward` took 97 us at
K = 256, whose product alone takes 45 at least (tiles_e273e12.json). So a CTA loads tile_n
columns of the weights, all of K, and keeps them. Each warpgroup works for itself: it copies
64 rows after the other into a ring of its own, multiplies, and finishes while the others
multiply. None waits for another, except where a CTA goes on to other columns. Rows are read
again for each tile of columns, weights about once: with 128 columns 2/3 of what tiles of
128 x 256 read from the L2 cache.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from pallas_kernels.two_four.mosaic_gpu.instructions import SWIZZLED, Instructions
from pallas_kernels.two_four.mosaic_gpu.pipeline import Tile, cta_count

ROWS = 64  # of a warpgroup


@dataclasses.dataclass(frozen=True)
class Resident:
  """The kernel: x (T, K), weights (K, F) or (F, K), other inputs -> outputs.

  Attributes:
    chunk: of K, what is copied at once.
    stages: chunks of a warpgroup in its ring.
    buffers: tiles of a warpgroup in its scratch: with two, the inputs of the next tile are
      read while this one is made.
    start, finish: what a tile needs before and after its product, as of
      dense.dense_kernel; start may be None.
  """

  do: Instructions
  T: int
  K: int
  F: int
  w_t: bool
  warpgroups: int
  tile_n: int
  chunk: int
  stages: int
  buffers: int
  start: Callable | None
  finish: Callable

  @property
  def blocks(self) -> int:
    return pl.cdiv(self.T, ROWS)

  @property
  def columns(self) -> int:
    return pl.cdiv(self.F, self.tile_n)

  @property
  def chunks(self) -> int:
    return self.K // self.chunk

  def kernel(self, out_type: Any, scratch: dict[str, Any], name: str) -> Callable:
    width = (self.tile_n, self.K) if self.w_t else (self.K, self.tile_n)
    slots = self.warpgroups * self.stages
    tiles = lambda *shape: plgpu.SMEM(shape, jnp.bfloat16, transforms=SWIZZLED)
    outputs = len(jax.tree.leaves(out_type))

    def body(*refs):
      x, w, *others = refs
      inputs, results = others[: len(others) - outputs], others[len(others) - outputs :]
      pl.run_scoped(
        functools.partial(self.columns_of_cta, x, w, inputs, results),
        weights=tiles(*width),
        weights_ready=plgpu.Barrier(),
        weights_free=plgpu.Barrier(num_arrivals=self.warpgroups),
        ring=tiles(slots, ROWS, self.chunk),
        loaded=plgpu.Barrier(num_barriers=slots),
        scratch=scratch,
        collective_axes='wg',
      )

    body.__name__ = name
    return plgpu.kernel(
      body,
      out_type=out_type,
      grid=(cta_count(self.do),),
      grid_names=('cta',),
      num_threads=self.warpgroups,
      thread_name='wg',
      compiler_params=plgpu.CompilerParams(lowering_semantics=plgpu.LoweringSemantics.Lane),
    )

  def columns_of_cta(
    self, x, w, inputs, results, weights, weights_ready, weights_free, **own
  ):
    """All that a CTA does: its share of the tiles, one column of them after the other."""
    cta, ctas, warpgroup = lax.axis_index('cta'), lax.axis_size('cta'), lax.axis_index('wg')
    total = self.columns * self.blocks
    low, high = (lax.div((cta + i) * total, ctas) for i in (0, 1))
    first, last = lax.div(low, self.blocks), pl.cdiv(high, self.blocks)

    @pl.loop(first, last)
    def _(column):
      top = jnp.maximum(low - column * self.blocks, 0) + warpgroup
      bottom = jnp.minimum(high - column * self.blocks, self.blocks)
      plgpu.wait_smem_to_gmem(0, wait_read_only=True)  # its first tile may have any buffer
      rows = _Rows(self, x, inputs, results, column, top, bottom, warpgroup, **own)
      rows.begin()

      @pl.when(warpgroup == 0)
      def _():
        part = pl.ds(column * self.tile_n, self.tile_n)
        part = w.at[part, :] if self.w_t else w.at[:, part]
        plgpu.copy_gmem_to_smem(part, weights, weights_ready)

      plgpu.barrier_wait(weights_ready)
      rows.run(weights)
      plgpu.barrier_arrive(weights_free)

      @pl.when(warpgroup == 0)
      def _():
        plgpu.barrier_wait(weights_free)

    plgpu.wait_smem_to_gmem(0, wait_read_only=True)


class _Rows:
  """The tiles of one warpgroup in one column: rows `top`, then every `warpgroups`-th."""

  def __init__(
    self, kernel, x, inputs, results, column, top, bottom, warpgroup, ring, loaded, scratch
  ):
    self.kernel, self.x, self.inputs, self.results = kernel, x, inputs, results
    self.column, self.top, self.warpgroup = column, top, warpgroup
    self.ring, self.loaded, self.scratch = ring, loaded, scratch
    self.count = lax.div(bottom - top + kernel.warpgroups - 1, kernel.warpgroups)

  def block(self, number):
    return self.top + number * self.kernel.warpgroups

  def tile(self, number) -> Tile:
    slot = self.warpgroup * self.kernel.buffers + lax.rem(number, self.kernel.buffers)
    block = self.block(number)
    where = block, self.column, self.warpgroup, block, slot
    return Tile(*where, self.inputs, self.results, self.scratch)

  def place(self, number, chunk: int):
    """Where in the ring a chunk of a tile is, and the barrier of its copy."""
    stages = self.kernel.stages
    slot = lax.rem(number * self.kernel.chunks + chunk, stages) + self.warpgroup * stages
    return self.ring.at[slot], self.loaded.at[slot]

  def load(self, number, chunk: int) -> None:
    """Starts the copy of a chunk; one beyond a tile is of the tile after it."""
    number, chunk = number + chunk // self.kernel.chunks, chunk % self.kernel.chunks

    @pl.when(number < self.count)
    def _():
      width = self.kernel.chunk
      rows = pl.ds(self.block(number) * ROWS, ROWS)
      part = self.x.at[rows, pl.ds(chunk * width, width)]
      plgpu.copy_gmem_to_smem(part, *self.place(number, chunk))

  def begin(self) -> None:
    for chunk in range(self.kernel.stages):
      self.load(jnp.int32(0), chunk)
    if self.kernel.buffers > 1:
      self.start(jnp.int32(0))

  def start(self, number) -> None:
    if self.kernel.start:

      @pl.when(number < self.count)
      def _():
        self.kernel.start(self.tile(number))

  def run(self, weights) -> None:
    kernel = self.kernel

    @pl.loop(0, self.count)
    def _(number):
      if kernel.buffers == 1:
        self.start(number)

      def scope(acc):
        for chunk in range(kernel.chunks):
          rows, ready = self.place(number, chunk)
          plgpu.barrier_wait(ready)
          part = pl.ds(chunk * kernel.chunk, kernel.chunk)
          w = weights.at[:, part].transpose((1, 0)) if kernel.w_t else weights.at[part]
          plgpu.wgmma(acc, rows, w)
          if chunk:
            plgpu.wgmma_wait(1)
            self.load(number, chunk - 1 + kernel.stages)
        if kernel.buffers > 1:
          self.start(number + 1)
        plgpu.wgmma_wait(0)
        self.load(number, kernel.chunks - 1 + kernel.stages)
        kernel.finish(acc[...], self.tile(number))

      pl.run_scoped(scope, plgpu.ACC((ROWS, kernel.tile_n), jnp.float32))


def chunk_of(K: int, chunk: int) -> int:
  """The widest chunk up to this that divides K; both are multiples of 64."""
  return math.gcd(K, chunk)
