"""What a Hopper GPU can do: its peaks, and the clocks that a step of a product takes.

A step is K = 128 of one tile of the output on one multiprocessor. Four things happen at the
same time, and each has its clocks:

  math     4096 FLOPs a clock, twice that for 2:4 counted dense
  reads    both operands from shared memory, 128 bytes a clock, by each instruction anew:
           64 rows of A, 16 bf16 wide in both kinds (a sparse one covers 32 of K), and of B
           all columns, 16 or 32 deep
  writes   both operands into shared memory by the copy engine, 128 bytes a clock
  arrival  the same bytes on their way from the L2 cache, 64 a clock, which is an assumption

So an instruction on 256 columns takes 128 clocks of math, and reads 10 KB in 80 clocks if
dense, 18 KB in 144 if sparse: Hopper's sparse product waits for shared memory. Left out are
the loads of metadata and the output, about 1 % each at K = 8192, waiting, and power.

Whether reads and writes share the 128 bytes a clock (`Clocks.shared`) or writes go beside
reads (`Clocks.beside`) is not documented. bench/ceilings.py measures each of the two alone.
"""

import dataclasses

# As measured: TFLOP/s of a dense bf16 product, TB/s of a copy.
PEAKS = {'h100': (798.0, 3.0), 'h200': (790.0, 4.3)}
FLOPS = 4096  # dense bf16, of a multiprocessor in a clock
SHARED_MEMORY, FROM_L2 = 128, 64  # bytes a clock
STEP_K = 128
ROWS, WIDTH = 64, 16  # of an instruction: of A and the output, and bf16 of A's rows
TILES = ((128, 256), (256, 128), (192, 192), (192, 256))


@dataclasses.dataclass(frozen=True)
class Op:
  """A product or a pass over memory: what it computes at either rate, what it moves."""

  name: str
  bytes: float
  dense_flops: float = 0.0
  sparse_flops: float = 0.0


@dataclasses.dataclass(frozen=True)
class Machine:
  """The peaks: dense TFLOP/s, TB/s, and the factor of the sparse rate over the dense."""

  matmul_tflops: float = PEAKS['h200'][0]
  bandwidth_tb: float = PEAKS['h200'][1]
  sparse_gain: float = 2.0

  def compute(self, op: Op) -> float:
    """Microseconds: (dense FLOPs + sparse FLOPs / g) / P."""
    return (op.dense_flops + op.sparse_flops / self.sparse_gain) / self.matmul_tflops / 1e6

  def memory(self, op: Op) -> float:
    """Microseconds: bytes / W."""
    return op.bytes / self.bandwidth_tb / 1e6

  def floor(self, ops: list[Op]) -> float:
    """Microseconds of ops one after the other: the sum of the larger of the two."""
    return sum(max(self.compute(op), self.memory(op)) for op in ops)


@dataclasses.dataclass(frozen=True)
class Clocks:
  """Of one step; see the top of this file."""

  math: float
  reads: float
  writes: float
  arrival: float

  @property
  def resident(self) -> float:
    """Of a step whose operands are in shared memory already."""
    return max(self.math, self.reads)

  @property
  def shared(self) -> float:
    """Where shared memory reads or writes, one at a time."""
    return max(self.math, self.reads + self.writes)

  @property
  def beside(self) -> float:
    """Where writes cost reads nothing."""
    return max(self.math, self.reads, self.writes)

  @property
  def fed(self) -> float:
    """The same, where operands arrive no faster than assumed."""
    return max(self.beside, self.arrival)


def copied(rows: int, columns: int, sparse: bool) -> int:
  """Bytes of a step: A, as bf16 or as half of it and a bit of metadata for each, and B."""
  a = rows * STEP_K * 2
  return (a // 2 + rows * STEP_K // 8 if sparse else a) + STEP_K * columns * 2


def clocks(rows: int, columns: int, sparse: bool) -> Clocks:
  """Of a step of a tile of rows x columns."""
  depth = 2 * WIDTH if sparse else WIDTH
  instructions = rows // ROWS * STEP_K // depth
  read = ROWS * WIDTH * 2 + depth * columns * 2
  moved = copied(rows, columns, sparse)
  return Clocks(
    math=instructions * 2 * ROWS * columns * WIDTH / FLOPS,
    reads=instructions * read / SHARED_MEMORY,
    writes=moved / SHARED_MEMORY,
    arrival=moved / FROM_L2,
  )


def gains(rows: int, columns: int) -> tuple[float, float, float]:
  """Sparse over dense at the full dense rate, at one clock: `shared`, `fed`, `beside`."""
  step = clocks(rows, columns, True)
  return tuple(2 * step.math / x for x in (step.shared, step.fed, step.beside))


def bounds() -> tuple[list[str], list[list[str]]]:
  """Header and rows of a table: clocks of a step of each tile, and its gains."""
  header = ['tile', 'dense math', 'sparse math', 'reads', 'writes', 'arrival']
  header += ['reads and writes share', 'arrival at 64 B/clock', 'reads alone']
  rows = []
  for tile in TILES:
    step = clocks(*tile, sparse=True)
    counts = 2 * step.math, step.math, step.reads, step.writes, step.arrival
    row = [*(f'{x:.0f}' for x in counts), *(f'{gain:.2f}' for gain in gains(*tile))]
    rows.append([f'{tile[0]} x {tile[1]}', *row])
  return header, rows
