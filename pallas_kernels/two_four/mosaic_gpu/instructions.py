"""What the kernels do to a whole tile and Pallas has no name for, and how to emulate it.

`Instructions(emulate=False)` inlines MLIR, which only a GPU runs; with emulate=True the
same contracts are plain jnp, for Mosaic GPU's interpret mode on a CPU. Everything else of a
kernel (copies, barriers, dense products, loops) is the same code in both.
"""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.mosaic import gpu as mgpu
from jax.experimental.mosaic.gpu import fragmented_array as fa
from jax.experimental.mosaic.gpu import mma_utils
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxlib.mlir import ir
from jaxlib.mlir.dialects import arith, llvm, nvvm, vector

from pallas_kernels.two_four.mosaic_gpu import emulation, packing, packing_tiles
from pallas_kernels.two_four.mosaic_gpu.lanes import (
  Threads,
  Word,
  fragments,
  opaque,
  opaque_reference,
)
from pallas_kernels.two_four.packed import (
  TILE_K,
)

# A 2:4 operand, B, accumulator and step: 128 entries of K are 64 kept ones, a row of 128 B.
K32 = TILE_K // 32  # instructions in a step
SWIZZLED = (plgpu.TilingTransform((8, 64)), plgpu.SwizzleTransform(128))
TILE, PLAIN = plgpu.RefType(SWIZZLED), plgpu.RefType()


@dataclasses.dataclass(frozen=True)
class Instructions:
  emulate: bool = False
  selector: int = 0  # of sparse products: which two lanes of a quad supply metadata

  def zeros(self, shape: tuple[int, int]) -> jax.Array:
    """An accumulator."""
    zeros = jnp.zeros(shape, jnp.float32)
    return zeros if self.emulate else plgpu.layout_cast(zeros, plgpu.Layout.WGMMA)

  def load(self, ref) -> jax.Array:
    """A tile of bf16 in the registers of a product's result."""
    if self.emulate:
      return ref[...]
    return plgpu.load(ref, layout=plgpu.Layout.WGMMA)

  def meet(self) -> None:
    """Waits for the other warps of the warpgroup.

    Each warp waits only for its own share of a product; before shared memory that the
    product read is written again, all must have done so. (Where all threads arrive at a
    barrier of a block, that does it.)
    """
    if not self.emulate:
      plgpu.inline_mgpu()(lambda ctx: mgpu.utils.warpgroup_barrier())()

  def multiply(self, acc: jax.Array | None, a_ref, b_ref) -> jax.Array:
    """acc, if given, and the product of a (64, K) and b (K, n), float32.

    What plgpu.wgmma computes, with the addresses of the operands out of the registers
    during the rest of the loop around it.
    """
    if self.emulate:
      product = jnp.dot(a_ref[...], b_ref[...], preferred_element_type=jnp.float32)
      return product if acc is None else acc + product
    shape = (a_ref.shape[0], b_ref.shape[1])
    inline = plgpu.inline_mgpu(
      arg_types=(TILE, TILE) if acc is None else (TILE, TILE, plgpu.Layout.WGMMA),
      return_type=plgpu.ShapeDtypeStruct(shape, jnp.float32, plgpu.Layout.WGMMA),
    )
    given = () if acc is None else (acc,)
    return inline(functools.partial(_multiply, n=shape[1]))(a_ref, b_ref, *given)

  def metadata(self, ref) -> jax.Array:
    """What `sparse_multiply` takes of uint32[..., m/64, 256], in registers."""
    if self.emulate:
      return ref[...]
    blocks = ref.shape[-2]
    kind = plgpu.ShapeDtypeStruct((blocks * 512,), jnp.uint32, _words_layout(blocks))
    inline = plgpu.inline_mgpu(arg_types=(PLAIN,), return_type=kind)
    return inline(lambda ctx, ref: _metadata_of_threads(ref, blocks))(ref)

  def sparse_multiply(
    self, acc, a_ref, b_ref, metadata, *, a_t: bool, b_t: bool, pending: int = 0
  ):
    """Adds A B to acc (m, n), with A (m, 128) 2:4 along its second axis.

    Args:
      acc: float32; m a multiple of 64.
      a_ref: kept entries (m, 64), or (64, m) with `a_t`.
      b_ref: (128, n), or (n, 128) with `b_t`.
      metadata: of A, as `metadata` returns it.
      pending: products that may still run on return. Until they end, acc may be given to
        the next product and to `finished`, and to nothing else.
    """
    if self.emulate:
      return emulation.sparse_multiply(acc, a_ref, b_ref, metadata, a_t, b_t)
    options = {'a_t': a_t, 'b_t': b_t, 'selector': self.selector, 'pending': pending}
    step = functools.partial(_sparse_multiply, **options)
    inline = plgpu.inline_mgpu(
      arg_types=(plgpu.Layout.WGMMA, TILE, TILE, _words_layout(acc.shape[0] // 64)),
      return_type=plgpu.ShapeDtypeStruct(acc.shape, jnp.float32, plgpu.Layout.WGMMA),
    )
    return inline(step)(acc, a_ref, b_ref, metadata)

  def finished(self, acc) -> jax.Array:
    """The accumulator when all products have ended."""
    if self.emulate:
      return acc
    kind = plgpu.ShapeDtypeStruct(acc.shape, jnp.float32, plgpu.Layout.WGMMA)

    @plgpu.inline_mgpu(arg_types=(plgpu.Layout.WGMMA,), return_type=kind)
    def inline(ctx, acc):
      nvvm.wgmma_wait_group_sync_aligned(0)
      return fa.optimization_barrier(acc)

    return inline(acc)

  def prune(self, h, values_ref, metadata_ref, activation) -> None:
    """Packs h (64, n), bf16, along its columns: (64, n/2) and uint32[n/128, 256].

    With the activation 'relu2' it is relu(h)^2 that is packed.
    """
    if self.emulate:
      emulation.prune(h, values_ref, metadata_ref, activation)
      return

    @plgpu.inline_mgpu(arg_types=(plgpu.Layout.WGMMA, TILE, PLAIN))
    def inline(ctx, h, values, metadata):
      width = row_width(values)
      packing.prune(Threads(), fragments(h), values, metadata, activation, width)

    inline(h, values_ref, metadata_ref)

  def gate(self, d, values_ref, metadata_ref) -> None:
    """Packed z becomes 2 sqrt(z) d at its kept entries; d (64, n), bf16."""
    if self.emulate:
      emulation.gate(d, values_ref, metadata_ref)
      return

    @plgpu.inline_mgpu(arg_types=(plgpu.Layout.WGMMA, TILE, PLAIN))
    def inline(ctx, d, values, metadata):
      packing.gate(Threads(), fragments(d), values, metadata, row_width(values))

    inline(d, values_ref, metadata_ref)

  def spread(self, values_ref, metadata_ref, dense_ref, warpgroup) -> None:
    """Unpacks (64, 128): warpgroup 0 its first 64 columns into dense_ref, 1 the others."""
    if self.emulate:
      emulation.spread(values_ref, metadata_ref, dense_ref, warpgroup)
      return

    @plgpu.inline_mgpu(arg_types=(TILE, PLAIN, TILE))
    def inline(ctx, values, metadata, dense):
      whole_rows(values, dense)
      packing.spread(Threads(), values, metadata, dense)

    inline(values_ref, metadata_ref, dense_ref)

  def pack_tile(self, y_ref, half, features, tokens, *, rule, activation) -> None:
    """Packs y (64, 128), one half of 128 tokens, along features, tokens or both.

    Args:
      y_ref: bf16.
      half: 0 or 1.
      features: None or references to values (64, 64) and metadata uint32[256].
      tokens: None or references to values (32, 128) and metadata uint32[2, 256], of which
        the words of this half are written.
      rule: 'top2' or 'transposable', whose mask serves both axes.
      activation: 'relu2' packs relu(y)^2.
    """
    if self.emulate:
      emulation.pack_tile(y_ref[...], half, features, tokens, rule, activation)
      return

    refs = lambda pair: pair and (TILE, PLAIN)
    scalar = plgpu.Layout.WG_SPLAT(())
    types = (TILE, scalar, refs(features), refs(tokens))

    @plgpu.inline_mgpu(arg_types=types)
    def inline(ctx, y, half, features, tokens):
      whole_rows(y, *(pair[0] for pair in (features, tokens) if pair))
      half = Word(half.registers.item())
      packing_tiles.pack_tile(Threads(), y, half, features, tokens, rule, activation)

    inline(y_ref, half, features, tokens)


def row_width(ref: ir.Value) -> int:
  """bf16 in a row of the matrix in memory of which a swizzled reference may be a part.

  The tiles of eight rows below one another are that many times eight apart.
  """
  strides, _ = ir.MemRefType(ref.type).get_strides_and_offset()
  return strides[-4] // 8


def whole_rows(*refs: ir.Value) -> None:
  """Refuses references to part of the columns, for code that takes rows to be whole."""
  for ref in refs:
    kind = ir.MemRefType(ref.type)
    if row_width(ref) != kind.shape[-3] * 64:
      raise ValueError(f'{kind}: must be whole rows, not part of the columns of a matrix')


def _multiply(ctx, a, b, given=None, *, n: int):
  del ctx
  if given is None:
    acc = mgpu.WGMMAAccumulator.zero(64, n)
  else:
    acc = mgpu.WGMMAAccumulator.from_registers(given)
  acc = mgpu.wgmma(acc, opaque_reference(a), opaque_reference(b), swizzle=128)
  nvvm.wgmma_commit_group_sync_aligned()
  nvvm.wgmma_wait_group_sync_aligned(0)
  return fa.optimization_barrier(acc.value)


def _sparse_multiply(
  ctx, acc, a, b, metadata, *, a_t: bool, b_t: bool, selector: int, pending: int
):
  """Issues the instructions of one step, commits them as a group and waits."""
  del ctx
  m, n = acc.shape
  layout = acc.layout
  words = [
    # Opaque, so that they are in registers before the fence that follows.
    [opaque(llvm.extractelement(v, arith.constant(_i32(), k))) for k in range(K32)]
    for v in metadata.registers.flat
  ]
  a_descriptor = _Descriptor.of(
    a, (TILE_K // 2, 64) if a_t else (64, TILE_K // 2), a_t, bytes_of_k=32
  )
  b_descriptor = _Descriptor.of(
    b, (n, TILE_K) if b_t else (TILE_K, n), not b_t, bytes_of_k=64
  )
  acc = fa.optimization_barrier(acc.to_layout(fa.WGMMA_LAYOUT_ACC_32BIT))
  nvvm.wgmma_fence_aligned()
  registers = acc.registers.copy()
  for k, block in itertools.product(range(K32), range(m // 64)):
    part = registers[block : block + 1]
    out = _wgmma_sp(
      list(part.flat),
      a_descriptor.at(k, block),
      b_descriptor.at(k),
      words[block][k],
      n,
      a_descriptor.transposed,
      b_descriptor.transposed,
      selector,
    )
    registers[block : block + 1] = np.array(out, dtype=object).reshape(part.shape)
  nvvm.wgmma_commit_group_sync_aligned()
  # The metadata was read by ordinary loads, and a copy may overwrite it next, which is of
  # another proxy. Here the fence takes no time of its own: the products run.
  nvvm.fence_proxy(nvvm.ProxyKind.async_shared, space=nvvm.SharedSpace.shared_cta)
  nvvm.wgmma_wait_group_sync_aligned(pending)
  acc = fa.FragmentedArray(_registers=registers, _layout=acc.layout, _is_signed=None)
  return fa.optimization_barrier(acc).to_layout(layout)


def _metadata_of_threads(metadata: ir.Value, blocks: int) -> fa.FragmentedArray:
  """For every 64 rows the four words that each thread gives to the instructions.

  Lanes 0 and 1 of a quad supply them (selector 0), one half of 16 entries each; lanes 2
  and 3 (selector 1) load the same words.
  """
  index = lambda x: arith.constant(ir.IndexType.get(), x)
  lane = Threads().lane()
  word = ((lane.w * 2 + (lane.q & 1)) * 8 + lane.r) * K32
  word = arith.index_cast(ir.IndexType.get(), word.value)
  leading = [index(0)] * (ir.MemRefType(metadata.type).rank - 2)
  kind = ir.VectorType.get((K32,), _i32())
  registers = np.empty(blocks, object)
  for block in range(blocks):
    registers[block] = vector.load(kind, metadata, [*leading, index(block), word])
  layout = fa.WGStridedFragLayout((blocks * 128 * K32,), K32)
  return fa.FragmentedArray(_registers=registers, _layout=layout, _is_signed=False)


def _words_layout(blocks: int):
  """Four words in each of 128 threads for every 64 rows."""
  return plgpu.Layout.WG_STRIDED((blocks * 128 * K32,), vec_size=K32)


def _i32() -> ir.Type:
  return ir.IntegerType.get_signless(32)


@dataclasses.dataclass(frozen=True)
class _Descriptor:
  """A shared-memory operand, as the instruction is told of it."""

  base: ir.Value
  tiling: tuple
  strides: tuple
  block_stride: int
  transposed: bool

  @classmethod
  def of(cls, ref, group: tuple[int, int], k_first: bool, bytes_of_k: int):
    (base, (tiling, strides)), (stride, _), fast = mma_utils.create_descriptor(
      ref,
      swizzle=128,
      group_size=group,
      logical_k_major=k_first,
      mma_bytewidth_k=bytes_of_k,
    )
    return cls(base, tuple(tiling), tuple(strides), stride, fast != mma_utils.Dim.K)

  def at(self, k: int, block: int = 0) -> ir.Value:
    """Of instruction k of a step, and of the 64 rows number `block`."""
    offset, rest = block * self.block_stride, k
    for size, stride in zip(reversed(self.tiling), reversed(self.strides[1:])):
      offset += rest % size * stride
      rest //= size
    offset = mma_utils.encode_addr(offset + rest * self.strides[0])
    i64 = ir.IntegerType.get_signless(64)
    flags = llvm.IntegerOverflowFlags.none
    return llvm.add(self.base, arith.constant(i64, offset), overflow_flags=flags)


def _wgmma_sp(
  acc, a, b, metadata, n: int, a_transposed: bool, b_transposed: bool, selector: int
):
  """One wgmma.mma_async.sp m64nNk32, bf16 x bf16 -> float32, A and B in shared memory."""
  count = n // 2
  operand = (f'${i}' for i in itertools.count())
  take = lambda k: list(itertools.islice(operand, k))
  outputs = take(count)
  take(count)  # the accumulator as input, in the same registers
  (a_name,), (b_name,), (word,), (use_acc,) = take(1), take(1), take(1), take(1)
  immediates = take(4)  # scale of A and B, transposition of A and B
  asm = (
    f'{{ .reg .pred p; setp.ne.b32 p, {use_acc}, 0; '
    f'wgmma.mma_async.sp.sync.aligned.m64n{n}k32.f32.bf16.bf16 '
    f'{{{",".join(outputs)}}}, {a_name}, {b_name}, {word}, {selector}, p, '
    f'{", ".join(immediates)}; }}\n'
  )
  constraints = ['=f'] * count + [str(i) for i in range(count)]
  constraints += ['l', 'l', 'r', 'n'] + ['n'] * 4
  i32 = ir.IntegerType.get_signless(32)
  constant = lambda x: llvm.ConstantOp(i32, ir.IntegerAttr.get(i32, int(x))).result
  one, element = constant(1), acc[0].type
  result = llvm.inline_asm(
    llvm.StructType.get_literal([element] * count),
    [*acc, a, b, metadata, one, one, one, constant(a_transposed), constant(b_transposed)],
    asm,
    ','.join(constraints),
    has_side_effects=True,
    asm_dialect=0,
  )
  return [llvm.extractvalue(element, result, [i]) for i in range(count)]
