"""What a thread of a warpgroup holds of a matrix product, and integer arithmetic for it.

An accumulator of 64 x N (or a bf16 matrix in the layout `plgpu.Layout.WGMMA`) lies in 128
threads so: thread 32 w + 4 r + q has of rows 16 w + r and 16 w + r + 8 the columns
8 j + 2 q and 8 j + 2 q + 1, for all j < N / 8. Four lanes that differ in q are a quad.

`Threads` is the machine that the algorithms of packing.py run on: `Word`s are 32-bit
unsigned integers, one in each thread, with the operators & | ^ + * << >> > !=. The tests
run the same algorithms on NumPy arrays of 128 words with a machine of the same methods.
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from jax.experimental.mosaic.gpu import fragmented_array as fa
from jax.experimental.mosaic.gpu import utils
from jaxlib.mlir import ir
from jaxlib.mlir.dialects import arith, llvm, math, vector


def _i32() -> ir.Type:
  return ir.IntegerType.get_signless(32)


def _constant(x: int) -> ir.Value:
  signed = x - (1 << 32) if x >> 31 else x
  return arith.constant(_i32(), ir.IntegerAttr.get(_i32(), signed))


def _operation(build):
  def apply(self: 'Word', other: 'Word | int') -> 'Word':
    value = _constant(other) if isinstance(other, int) else other.value
    return Word(build(self.value, value))

  return apply


def _compare(predicate: arith.CmpIPredicate):
  return _operation(lambda a, b: arith.cmpi(predicate, a, b))


@dataclasses.dataclass(frozen=True, eq=False)
class Word:
  """A 32-bit unsigned integer in each thread, or the bit of a comparison."""

  value: ir.Value

  __and__ = _operation(arith.andi)
  __or__ = _operation(arith.ori)
  __xor__ = _operation(arith.xori)
  __add__ = _operation(arith.addi)
  __mul__ = _operation(arith.muli)
  __lshift__ = _operation(arith.shli)
  __rshift__ = _operation(arith.shrui)
  __gt__ = _compare(arith.CmpIPredicate.ugt)
  __ne__ = _compare(arith.CmpIPredicate.ne)


class Lane(NamedTuple):
  """Where a thread is: warp w of 4, row r of 8, position q of 4 in its quad."""

  w: Any
  r: Any
  q: Any

  @property
  def odd(self):
    return (self.q & 1) != 0

  @property
  def upper(self):
    return (self.q & 2) != 0


def lane_of(thread) -> Lane:
  """Of a thread's number in its warpgroup."""
  return Lane(thread >> 5, (thread >> 2) & 7, thread & 3)


class Threads:
  """The 128 threads of a warpgroup on the GPU."""

  def thread(self) -> Word:
    """The number of this thread in its CTA."""
    return Word(opaque(utils.thread_idx()))

  def lane(self) -> Lane:
    return lane_of(self.thread() & 127)

  def maximum(self, a: Word, b: Word) -> Word:
    return Word(arith.maxui(a.value, b.value))

  def minimum(self, a: Word, b: Word) -> Word:
    return Word(arith.minui(a.value, b.value))

  def where(self, condition: Word, a: Word, b: Word) -> Word:
    return Word(arith.select(condition.value, a.value, b.value))

  def shuffle(self, x: Word, distance: int) -> Word:
    """The word of the lane whose number differs by XOR with `distance`."""
    return Word(utils.shfl_bfly(x.value, distance))

  def store(self, x: Word, ref: ir.Value, byte: Word) -> None:
    llvm.store(x.value, _pointer(ref, byte))

  def load(self, ref: ir.Value, byte: Word) -> Word:
    return Word(llvm.load(_i32(), _pointer(ref, byte)))

  def store2(self, words: list[Word], ref: ir.Value, byte: Word) -> None:
    kind = ir.VectorType.get((2,), _i32())
    llvm.store(vector.from_elements(kind, [x.value for x in words]), _pointer(ref, byte))

  def load2(self, ref: ir.Value, byte: Word) -> list[Word]:
    """Two words from a multiple of 8 bytes."""
    x = llvm.load(ir.VectorType.get((2,), _i32()), _pointer(ref, byte))
    return [Word(llvm.extractelement(x, _constant(i))) for i in range(2)]

  def constant(self, x: int) -> Word:
    return Word(_constant(x))

  def permute(self, a: Word, b: Word, selector: 'Word | int') -> Word:
    """Four bytes of (a, b), counted from a's lowest, by the nibbles of `selector`.

    A nibble with its highest bit set gives the sign of its byte, eight times.
    """
    if isinstance(selector, int):
      selector = self.constant(selector)
    operands = a.value, b.value, selector.value
    return Word(
      utils.inline_ptx('prmt.b32 $0, $1, $2, $3;', *operands, result_types=_i32())
    )

  def add_floats(self, a: Word, b: Word) -> Word:
    """The sum of two float32."""
    a, b = (arith.bitcast(ir.F32Type.get(), x.value) for x in (a, b))
    return Word(arith.bitcast(_i32(), arith.addf(a, b)))

  def store4(self, words: list[Word], ref: ir.Value, byte: Word) -> None:
    kind = ir.VectorType.get((4,), _i32())
    vector_of_4 = vector.from_elements(kind, [x.value for x in words])
    llvm.store(vector_of_4, _pointer(ref, byte))

  def load4(self, ref: ir.Value, byte: Word) -> list[Word]:
    """Four words from a multiple of 16 bytes."""
    x = llvm.load(ir.VectorType.get((4,), _i32()), _pointer(ref, byte))
    return [Word(llvm.extractelement(x, _constant(i))) for i in range(4)]

  def squared_relu(self, x: Word) -> Word:
    """relu(x)^2 of two bf16, rounded once, as in float32: the product is exact there."""
    bits = utils.inline_ptx(
      '{ .reg .b32 t; max.NaN.bf16x2 t, $1, $2; mul.rn.bf16x2 $0, t, t; }',
      x.value,
      _constant(0),
      result_types=_i32(),
    )
    return Word(bits)

  def slope(self, z: Word, d: Word) -> Word:
    """2 sqrt(z) d in float32, rounded once, for two bf16 in each word."""
    halves = [
      arith.mulf(
        arith.mulf(math.sqrt(_float(z, half)), _float(d, half)),
        arith.constant(ir.F32Type.get(), 2.0),
      )
      for half in (0, 1)
    ]
    return _pair(*halves)


def opaque(x: ir.Value) -> ir.Value:
  """A 32-bit value as if it could change here.

  Else the compiler computes all that follows from it before the loop, and holds it in
  registers that a full accumulator does not leave.
  """
  move = 'mov.b32 $0, $1;'
  return utils.inline_ptx(move, x, result_types=_i32(), has_side_effects=True)


def opaque_reference(ref: ir.Value) -> ir.Value:
  """A reference to shared memory whose address is `opaque`."""
  kind = ir.MemRefType(ref.type)
  strides, _ = kind.get_strides_and_offset()
  layout = ir.StridedLayoutAttr.get(0, strides)
  kind = ir.MemRefType.get(kind.shape, kind.element_type, layout, kind.memory_space)
  pointer = utils.memref_ptr(ref)
  address = opaque(llvm.ptrtoint(_i32(), pointer))
  return utils.ptr_as_memref(llvm.inttoptr(pointer.type, address), kind)


def _pointer(ref: ir.Value, byte: Word) -> ir.Value:
  eight_bits = ir.IntegerType.get_signless(8)
  return utils.getelementptr(utils.memref_ptr(ref), [byte.value], eight_bits)


def _float(x: Word, half: int) -> ir.Value:
  """The lower (0) or upper (1) bf16 of a word, as a float32."""
  bits = x & 0xFFFF0000 if half else x << 16
  return arith.bitcast(ir.F32Type.get(), bits.value)


def _pair(low: ir.Value, high: ir.Value) -> Word:
  """Two float32, rounded to bf16, in one word."""
  bf16 = ir.BF16Type.get()
  halves = [
    Word(arith.extui(_i32(), arith.bitcast(ir.IntegerType.get_signless(16), x)))
    for x in (arith.truncf(bf16, low), arith.truncf(bf16, high))
  ]
  return halves[0] | halves[1] << 16


def fragments(x: fa.FragmentedArray) -> np.ndarray:
  """The registers of a bf16 matrix (64, N): Words [N/8, 2] by column block and row half.

  The lower 16 bits of a word are the even column.
  """
  if x.shape[0] != 64 or x.layout != fa.WGMMA_LAYOUT or x.mlir_dtype != ir.BF16Type.get():
    raise ValueError(f'{x.shape} {x.mlir_dtype} in {x.layout}: must be 64 x N, bf16, WGMMA')
  words = [Word(utils.bitcast(v, _i32())) for v in x.registers.flat]
  result = np.empty(len(words), object)
  result[:] = words
  return result.reshape(x.shape[1] // 8, 2)
