"""Dense products whose epilogue is 2:4: what is F wide meets memory only when packed.

`up_compress` is the up-projection with squared ReLU, pruning and packing in its epilogue,
`gated_backward` the product that gives the gradient of z, of which only what belongs to
kept entries leaves the kernel.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from pallas_kernels.two_four.mosaic_gpu.instructions import SWIZZLED, Instructions
from pallas_kernels.two_four.mosaic_gpu.matmul import out_scratch, store_tile
from pallas_kernels.two_four.mosaic_gpu.pipeline import Grid, Operand, tiled_kernel
from pallas_kernels.two_four.mosaic_gpu.resident import (
  ROWS,
  Resident,
  chunk_of,
)
from pallas_kernels.two_four.packed import TILE_K, metadata_shape

K_STEP = 64  # of a dense product: a row of 128 bytes


@dataclasses.dataclass(frozen=True)
class Config:
  """A CTA makes 64 * warpgroups x tile_n of the F-wide matrix at a time.

  By pipeline.py, where rows and weights stream along K, or by resident.py, where all of K
  fits into shared memory. `cluster`, `snake` and `in_flight` are the former's, `chunk` and
  `buffers` the latter's.
  """

  warpgroups: int = 2
  tile_n: int = 256
  stages: int = 3
  cluster: int = 1  # CTAs that share the copies of the weights
  snake: int = 8
  in_flight: int = 1  # steps whose product may still run when the next one begins
  resident: bool = False
  chunk: int = 128  # of K, copied at once
  buffers: int = 1  # tiles of a warpgroup on their way from or to memory

  def __post_init__(self):
    others = ('cluster', 'snake', 'in_flight') if self.resident else ('chunk', 'buffers')
    for field in dataclasses.fields(self):
      if field.name in others and getattr(self, field.name) != field.default:
        raise ValueError(
          f'{field.name}={getattr(self, field.name)}: must be {field.default} with '
          f'resident={self.resident}'
        )

  @property
  def tile_m(self) -> int:
    return self.warpgroups * ROWS

  @property
  def parts(self) -> int:
    """Of each scratch buffer."""
    return self.warpgroups * self.buffers


def squared_relu(h: jax.Array) -> jax.Array:
  """Of the accumulator as the layer without 2:4 would hold it: rounded before and after."""
  h = jnp.maximum(h.astype(jnp.bfloat16).astype(jnp.float32), 0)
  return (h * h).astype(jnp.bfloat16)


@functools.partial(jax.jit, static_argnames=('w_t', 'prune', 'config', 'emulate'))
def up_compress(
  x: jax.Array,
  w: jax.Array,
  *,
  w_t: bool = False,
  prune: bool = True,
  config: Config = Config(),
  emulate: bool = False,
):
  """prune(relu(x w)^2), packed along F; x w and its square never reach memory.

  Args:
    x: bf16 (T, K), T a multiple of 8 and at least 16, K of 64.
    w: bf16 (K, F), or (F, K) with `w_t`, F a multiple of 128.
    prune: False for a control: relu(x w)^2 itself, (T, F).

  Returns:
    (values bf16 (T, F/2), metadata uint32[F/128, T/64 or else 2, 256]).
  """
  (T, _), F = x.shape, w.shape[0 if w_t else 1]
  do = Instructions(emulate)

  def store_packed(h, tile):
    values, metadata = tile.mine('values'), tile.mine('metadata')
    # Of the tile that was in this buffer before; those of the other buffers may go on.
    plgpu.wait_smem_to_gmem(2 * (config.buffers - 1), wait_read_only=True)
    for columns, *blocks in blocks_of_128(values, metadata):
      do.prune(h[:, columns].astype(jnp.bfloat16), *blocks, 'relu2')
    plgpu.commit_smem()
    for here, there in zip((values, metadata), packed_tile(tile, *tile.outputs)):
      plgpu.copy_smem_to_gmem(here, there)

  name = 'two_four_up_compress' if prune else 'dense_up'
  kernel = functools.partial(dense_kernel, do, x, w, w_t, config, name)
  if prune:
    out_type, scratch = packed_type(T, F), packed_scratch(config)
    return kernel(out_type, store_packed, scratch)(x, w)
  out_type = (jax.ShapeDtypeStruct((T, F), jnp.bfloat16),)
  scratch = {'out': out_scratch(config.parts, ROWS, config.tile_n, jnp.bfloat16)}
  return kernel(out_type, lambda h, tile: store_tile(squared_relu(h), tile), scratch)(x, w)[
    0
  ]


@functools.partial(jax.jit, static_argnames=('w_t', 'config', 'emulate'))
def gated_backward(
  g: jax.Array,
  w: jax.Array,
  values: jax.Array,
  metadata: jax.Array | None,
  *,
  w_t: bool = True,
  config: Config = Config(),
  emulate: bool = False,
) -> jax.Array:
  """2 sqrt(z) g w at the kept entries of z: the gradient of h; z's metadata serves it too.

  Args:
    g: bf16 (T, K), the gradient of z w'.
    w: bf16 (K, F), or (F, K) with `w_t`.
    values: bf16 (T, F/2), z packed along F.
    metadata: of z, or None for a control without pruning: values are all of z, (T, F).

  Returns:
    The values of dh, bf16, of the shape of z's.
  """
  prune, do, c = metadata is not None, Instructions(emulate), config
  scratch = packed_scratch(c) if prune else {'values': dense_tiles(c, c.tile_n)}
  scratch['loaded'] = plgpu.Barrier(num_arrivals=2 if prune else 1, num_barriers=c.parts)

  def start(tile):
    plgpu.wait_smem_to_gmem(0, wait_read_only=True)  # of the tile before
    places = packed_tile(tile, *tile.inputs)
    for name, place in zip(('values', 'metadata')[: 1 + prune], places):
      plgpu.copy_gmem_to_smem(place, tile.mine(name), tile.mine('loaded'))

  def finish(dz, tile):
    values = tile.mine('values')
    plgpu.barrier_wait(tile.mine('loaded'))
    if prune:
      for columns, *blocks in blocks_of_128(values, tile.mine('metadata')):
        do.gate(dz[:, columns].astype(jnp.bfloat16), *blocks)
    else:
      gate_dense(do, dz, values)
    plgpu.commit_smem()
    plgpu.copy_smem_to_gmem(values, packed_tile(tile, *tile.outputs)[0])

  out_type = (jax.ShapeDtypeStruct(values.shape, jnp.bfloat16),)
  name = 'two_four_gated_backward' if prune else 'dense_gated_backward'
  kernel = dense_kernel(do, g, w, w_t, c, name, out_type, finish, scratch, start)
  return kernel(g, w, values, *([metadata] if prune else []))[0]


def gate_dense(do: Instructions, dz: jax.Array, z) -> None:
  """Replaces z, in shared memory, by 2 sqrt(z) dz."""
  for first in range(0, dz.shape[1], ROWS):
    block = z.at[:, pl.ds(first, ROWS)]
    part = dz[:, first : first + ROWS].astype(jnp.bfloat16).astype(jnp.float32)
    slope = 2 * jnp.sqrt(do.load(block).astype(jnp.float32))
    block[...] = (slope * part).astype(jnp.bfloat16)


def dense_kernel(
  do, x, w, w_t: bool, config: Config, name: str, out_type, finish, scratch, start=None
):
  """A kernel for finish(x w, tile), after start(tile).

  See pipeline.tiled_kernel, or resident.Resident for a config that says so.
  """
  (T, K), F = x.shape, w.shape[0 if w_t else 1]
  c = config
  if c.resident:
    chunk = chunk_of(K, c.chunk)
    sizes = c.warpgroups, c.tile_n, chunk, c.stages, c.buffers
    resident = Resident(do, T, K, F, w_t, *sizes, start, finish)
    return resident.kernel(out_type, scratch, name)
  rows = lambda tile: pl.ds(tile.row * c.tile_m, c.tile_m)
  columns = lambda tile: pl.ds(tile.column * c.tile_n, c.tile_n)
  x_operand = Operand(
    block=(c.tile_m, K_STEP),
    index=lambda k: (0, k),
    at=lambda ref, t: ref.at[rows(t), :],
  )
  w_operand = Operand(
    block=(c.tile_n, K_STEP) if w_t else (K_STEP, c.tile_n),
    index=(lambda k: (0, k)) if w_t else (lambda k: (k, 0)),
    at=lambda ref, t: ref.at[columns(t), :] if w_t else ref.at[:, columns(t)],
    shared=True,
  )

  def step(tile, _, blocks, acc):
    x, w = blocks
    mine = x.at[pl.ds(tile.warpgroup * ROWS, ROWS)]
    plgpu.wgmma(acc, mine, w.transpose((1, 0)) if w_t else w)
    if not grid.running:
      plgpu.wgmma_wait(0)
    return acc

  def compute(tile, run):
    if start:
      start(tile)

    def scope(acc):
      run(acc)
      finish(acc[...], tile)

    pl.run_scoped(scope, plgpu.ACC((ROWS, c.tile_n), jnp.float32))

  grid = Grid(
    pl.cdiv(T, c.tile_m * c.cluster) * c.cluster,
    pl.cdiv(F, c.tile_n),
    K // K_STEP,
    c.stages,
    c.warpgroups,
    c.cluster,
    c.snake,
    in_flight=c.in_flight,
  )
  operands = [x_operand, w_operand]
  return tiled_kernel(do, grid, operands, out_type, step, compute, scratch, name)


def packed_tile(tile, values, metadata=None):
  """Where the rows of a warpgroup are in a packed (T, F), and in its metadata."""
  width = tile.scratch['values'].shape[-1]
  values = values.at[pl.ds(tile.block * ROWS, ROWS), pl.ds(tile.column * width, width)]
  if metadata is not None:
    blocks = tile.scratch['metadata'].shape[1]
    metadata = metadata.at[pl.ds(tile.column * blocks, blocks), tile.block]
  return values, metadata


def blocks_of_128(values, metadata):
  """(Columns of an accumulator, their part of the packed tile): fewer live registers."""
  half = TILE_K // 2
  for number in range(metadata.shape[0]):
    columns = slice(number * TILE_K, (number + 1) * TILE_K)
    part = values.at[:, pl.ds(number * half, half)]
    yield columns, part, metadata.at[pl.ds(number, 1)]


def packed_type(T: int, F: int):
  """Values and metadata, of two blocks of 64 tokens at least.

  A copy drops the index of an axis of one: what a warpgroup has beyond T would be written
  over the only block.
  """
  tiles_k, tiles_m, words = metadata_shape(T, F)
  return (
    jax.ShapeDtypeStruct((T, F // 2), jnp.bfloat16),
    jax.ShapeDtypeStruct((tiles_k, max(tiles_m, 2), words), jnp.uint32),
  )


def packed_scratch(config: Config) -> dict:
  """A packed tile for each part."""
  metadata = (config.parts, config.tile_n // TILE_K, 256)
  values = dense_tiles(config, config.tile_n // 2)
  return {'values': values, 'metadata': plgpu.SMEM(metadata, jnp.uint32)}


def dense_tiles(config: Config, width: int):
  """A tile of 64 rows for each part."""
  return plgpu.SMEM((config.parts, ROWS, width), jnp.bfloat16, transforms=SWIZZLED)
