"""Pruning and packing of a matrix that is in memory, along one axis or both at once.

Nothing is multiplied: the kernel is as fast as its copies. Every warpgroup works for itself
on tiles of 128 x 128, in two halves of 64 rows; as soon as a half is packed, the copy of a
later tile's half takes its place.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from pallas_kernels.two_four.mosaic_gpu.instructions import SWIZZLED, Instructions
from pallas_kernels.two_four.mosaic_gpu.pipeline import cta_count
from pallas_kernels.two_four.packed import metadata_shape

TILE, HALF = 128, 64
AXES = {'features': ('features',), 'tokens': ('tokens',), 'both': ('features', 'tokens')}


@dataclasses.dataclass(frozen=True)
class Config:
  """A warpgroup has 32 KB of input a stage, and 18 KB of output along each axis."""

  warpgroups: int = 3
  stages: int = 1  # tiles of a warpgroup in flight


@functools.partial(
  jax.jit, static_argnames=('along', 'rule', 'activation', 'config', 'emulate')
)
def compress(
  y: jax.Array,
  *,
  along: str = 'features',
  rule: str = 'top2',
  activation: str | None = None,
  config: Config = Config(),
  emulate: bool = False,
):
  """Keeps two of every four entries of y, or of relu(y)^2, and packs them.

  Args:
    y: bf16 (T, F), T a multiple of 16, F of 128.
    along: 'features', 'tokens' or 'both'.
    rule: 'top2' or 'transposable': with that one mask serves both axes.
    activation: None or 'relu2'.

  Returns:
    For 'features' (values (T, F/2), metadata uint32[F/128, T/64, 256]), for 'tokens'
    (values (T/2, F), metadata uint32[T/128, F/64, 256]), for 'both' these two pairs.
  """
  T, F = y.shape
  packing = Packing(T, F, AXES[along], rule, activation, config, Instructions(emulate))
  pairs = packing.kernel()(y)
  return tuple(pairs[axis] for axis in AXES[along]) if along == 'both' else pairs[along]


@dataclasses.dataclass(frozen=True)
class Packing:
  """The kernel of `compress`."""

  T: int
  F: int
  axes: tuple[str, ...]
  rule: str
  activation: str | None
  config: Config
  do: Instructions

  def kernel(self):
    c, tiles = self.config, pl.cdiv(self.T, TILE) * pl.cdiv(self.F, TILE)
    types = {
      'features': ((self.T, self.F // 2), metadata_shape(self.T, self.F)),
      'tokens': ((self.T // 2, self.F), metadata_shape(self.F, self.T)),
    }
    smem = lambda *shape: plgpu.SMEM(
      (c.warpgroups, *shape), jnp.bfloat16, transforms=SWIZZLED
    )
    values = {'features': smem(TILE, HALF), 'tokens': smem(HALF, TILE)}
    metadata = plgpu.SMEM((c.warpgroups, 2, 256), jnp.uint32)
    return plgpu.kernel(
      self.body,
      out_type={
        axis: (
          jax.ShapeDtypeStruct(types[axis][0], jnp.bfloat16),
          jax.ShapeDtypeStruct(types[axis][1], jnp.uint32),
        )
        for axis in self.axes
      },
      scratch_types=(
        smem(c.stages * 2, HALF, TILE),
        plgpu.Barrier(num_barriers=c.warpgroups * c.stages * 2),
        {axis: (values[axis], metadata) for axis in self.axes},
      ),
      grid=(min(cta_count(self.do), pl.cdiv(tiles, c.warpgroups)),),
      grid_names=('cta',),
      num_threads=c.warpgroups,
      thread_name='wg',
      compiler_params=plgpu.CompilerParams(lowering_semantics=plgpu.LoweringSemantics.Lane),
    )

  def body(self, y, outputs, halves, loaded, packed):
    """What a warpgroup does; y and outputs in memory, the rest is the CTA's."""
    warpgroup, stages = lax.axis_index('wg'), self.config.stages
    worker, workers = lax.axis_index(('cta', 'wg')), lax.axis_size(('cta', 'wg'))
    rows, columns = pl.cdiv(self.T, TILE), pl.cdiv(self.F, TILE)
    halves = halves.at[warpgroup]
    packed = jax.tree.map(lambda ref: ref.at[warpgroup], packed)

    def buffer(step, half):
      slot = lax.rem(step, stages) * 2 + half
      return halves.at[slot], loaded.at[warpgroup * (2 * stages) + slot]

    def load(step, half):
      tile = worker + step * workers

      @pl.when(tile < rows * columns)
      def _():
        here = (
          pl.ds(lax.div(tile, columns) * TILE + half * HALF, HALF),
          pl.ds(lax.rem(tile, columns) * TILE, TILE),
        )
        plgpu.copy_gmem_to_smem(y.at[here], *buffer(step, half))

    for step in range(stages):
      for half in (0, 1):
        load(jnp.int32(step), half)

    @plgpu.nd_loop((rows, columns), collective_axes=('cta', 'wg'))
    def _(loop):
      plgpu.wait_smem_to_gmem(0, wait_read_only=True)  # of the tile before

      @pl.loop(0, 2)
      def _(half):
        here, barrier = buffer(loop.local_index, half)
        plgpu.barrier_wait(barrier)
        self.pack_half(here, half, packed)
        plgpu.commit_smem()
        load(loop.local_index + stages, half)

      self.store(*loop.index, packed, outputs)

    plgpu.wait_smem_to_gmem(0, wait_read_only=True)

  def pack_half(self, y, half, packed):
    features = tokens = None
    if 'features' in packed:
      values, metadata = packed['features']
      features = values.at[pl.ds(half * HALF, HALF)], metadata.at[half]
    if 'tokens' in packed:
      values, metadata = packed['tokens']
      tokens = values.at[pl.ds(half * (HALF // 2), HALF // 2)], metadata
    options = {'rule': self.rule, 'activation': self.activation}
    self.do.pack_tile(y, half, features, tokens, **options)

  def store(self, row, column, packed, outputs):
    """Starts the copies of a packed tile to memory."""
    half = lambda i: pl.ds(i * HALF, HALF)
    whole = lambda i: pl.ds(i * TILE, TILE)
    two = lambda i: pl.ds(i * 2, 2)
    places = {
      'features': ((whole(row), half(column)), (column, two(row))),
      'tokens': ((half(row), whole(column)), (row, two(column))),
    }
    for axis in self.axes:
      for ref, out, place in zip(packed[axis], outputs[axis], places[axis]):
        plgpu.copy_smem_to_gmem(ref, out.at[place])
