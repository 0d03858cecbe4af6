"""The loop that the matrix kernels share: tiles over the CTAs, K through a TMA pipeline.

Every CTA takes one tile of the output after the other. One warpgroup copies blocks of the
operands into shared memory, some steps ahead; the others compute, each on its own rows of
the tile. A kernel says what an operand's block is, what a step does with the blocks and
what becomes of the accumulator.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jax.extend import backend

from pallas_kernels.two_four.mosaic_gpu.instructions import SWIZZLED, Instructions

EMULATED_CTAS = 2
COPY_REGISTERS = {1: 40, 2: 56}  # of the warpgroup that copies, by the size of the cluster


@dataclasses.dataclass(frozen=True)
class Operand:
  """An input that streams along K.

  Attributes:
    block: its shape in shared memory, for one step.
    index: step -> block index along its axes.
    at: (reference, tile) -> the part of it that the tile needs, all of K.
    shared: all CTAs of a cluster need the same part; one copy serves them.
    plain: neither tiled nor swizzled (metadata).
  """

  block: tuple[int, ...]
  index: Callable[[jax.Array], tuple]
  at: Callable[[Any, 'Tile'], Any]
  shared: bool = False
  plain: bool = False


@dataclasses.dataclass(frozen=True)
class Tile:
  """What a warpgroup works on: a tile of the output, by row and column, and with what.

  Attributes:
    block: which rows of the output are the warpgroup's, counted by its own number of them.
    slot: which part of each scratch buffer is the warpgroup's.
    inputs: those that are not operands.
    scratch: of the CTA.
  """

  row: jax.Array
  column: jax.Array
  warpgroup: jax.Array
  block: jax.Array
  slot: jax.Array
  inputs: tuple
  outputs: tuple
  scratch: dict[str, Any]

  def mine(self, name: str) -> Any:
    """This warpgroup's part of a scratch buffer, or its barrier."""
    return self.scratch[name].at[self.slot]


@dataclasses.dataclass(frozen=True)
class Grid:
  """How many tiles the output has, how many steps a tile has, and how they are run."""

  rows: int
  columns: int
  steps: int
  stages: int  # steps in flight
  warpgroups: int = 2
  cluster: int = 1  # CTAs that take tiles one below the other at the same time
  snake: int = 8  # columns of tiles that are taken together, for the L2 cache
  waits: bool = False  # a step waits for each block itself
  frees: bool = False  # a step frees each block itself
  in_flight: int = 0  # products that may run on while the steps after them begin

  @property
  def running(self) -> int:
    """`in_flight`, as far as there are steps and stages."""
    return min(self.in_flight, self.steps - 1, self.stages - 1)


def cta_count(do: Instructions) -> int:
  """One for each multiprocessor of the device that the program is for (132: H200).

  Emulated few, so that each takes several tiles and the test takes less time.
  """
  if do.emulate:
    return EMULATED_CTAS
  abstract = jax.sharding.get_abstract_mesh().abstract_device
  counts = (
    getattr(abstract, 'num_cores', None),
    getattr(backend.get_default_device(), 'core_count', None),
  )
  return next((count for count in counts if count), 132)


def tiled_kernel(
  do: Instructions,
  grid: Grid,
  operands: list[Operand],
  out_type: Any,
  step: Callable,
  compute: Callable,
  scratch: dict[str, Any],
  name: str,
) -> Callable:
  """A kernel: operands, then other inputs -> outputs.

  Args:
    step: (tile, k, blocks, carry) -> carry, for step k of a tile. The
      blocks are followed by a barrier each to wait for, with grid.waits, and by a barrier
      each to arrive at, with grid.frees.
    compute: (tile, run): all that a warpgroup does for a tile; run(carry) runs the steps
      and returns the last carry.
    scratch: of a CTA, by name.
    name: what profilers call it.
  """
  total = len(operands)
  outputs = len(jax.tree.leaves(out_type))
  cluster = {'cluster': (grid.cluster,), 'cluster_names': ('cluster',)}

  def body(*refs):
    streams, others = refs[:total], refs[total : len(refs) - outputs]
    results = refs[len(refs) - outputs :]
    pipeline = functools.partial(_pipeline, grid, operands)
    nothing = lambda *_, **__: None

    @functools.partial(
      pl.run_scoped,
      allocations=pipeline(nothing, nothing).get_allocations(*streams),
      scratch=scratch,
      collective_axes='wg',
    )
    def _(allocations, scratch):
      @plgpu.nd_loop((grid.rows // grid.cluster * grid.columns,), collective_axes='cta')
      def _(loop):
        shape = (grid.rows // grid.cluster, grid.columns)
        row, column = plgpu.planar_snake(loop.index[0], shape, 1, grid.snake)
        if grid.cluster > 1:
          row = row * grid.cluster + lax.axis_index('cluster')
        warpgroup = lax.axis_index('wg')
        block = row * grid.warpgroups + warpgroup
        tile = Tile(row, column, warpgroup, block, warpgroup, others, results, scratch)

        def run_step(index, *rest):
          carry = step(tile, index[0], rest[:-1], rest[-1])
          if grid.running:
            _wait_for_products(grid, index[0])
          if grid.cluster > 1:
            do.meet()  # only one warp tells the other CTAs that a block is free
          return carry

        run_tile = lambda run: compute(tile, run)
        parts = [operand.at(ref, tile) for operand, ref in zip(operands, streams)]
        pipeline(run_step, run_tile)(*parts, allocations=allocations)

    plgpu.wait_smem_to_gmem(0, wait_read_only=True)

  body.__name__ = name
  return plgpu.kernel(
    body,
    out_type=out_type,
    grid=(cta_count(do) // grid.cluster,),
    grid_names=('cta',),
    **cluster,
    num_threads=grid.warpgroups + 1,
    thread_name='wg',
    compiler_params=plgpu.CompilerParams(lowering_semantics=plgpu.LoweringSemantics.Lane),
  )


def _wait_for_products(grid: Grid, k: jax.Array) -> None:
  """Leaves `running` products of plgpu.wgmma on their way, after the last step none.

  The blocks of a step are then freed that many steps later. Nobody frees those of the last
  steps: the copies of the next tile begin when the last step ends.
  """
  plgpu.wgmma_wait(grid.running)

  @pl.when(k == grid.steps - 1)
  def _():
    plgpu.wgmma_wait(0)


def _pipeline(grid: Grid, operands: list[Operand], step: Callable, compute: Callable):
  return plgpu.emit_pipeline_warp_specialized(
    step,
    grid=(grid.steps,),
    memory_registers=COPY_REGISTERS[grid.cluster],
    wg_axis='wg',
    num_compute_wgs=grid.warpgroups,
    max_concurrent_steps=min(grid.stages, grid.steps),
    manual_produced_barriers=grid.waits,
    manual_consumed_barriers=grid.frees,
    compute_context=compute,
    in_specs=[
      plgpu.BlockSpec(
        x.block,
        x.index,
        transforms=() if x.plain else SWIZZLED,
        collective_axes=('cluster',) if x.shared and grid.cluster > 1 else None,
        delay_release=grid.running,
      )
      for x in operands
    ],
  )
