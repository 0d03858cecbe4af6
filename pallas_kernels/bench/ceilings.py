"""What bounds the products here: parts of them alone, timed on the device.

The times are held against XLA's dense product and a copy, measured in the same process; the
clocks of a step against the counts of machine.py, which know nothing of power. A step is
K = 128 of a tile of 128 x 256 on one multiprocessor: of whatever part of it, the rate is
that of a kernel for which all the rest is free.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pallas_kernels.bench import timing
from pallas_kernels.bench.programs import compiled
from pallas_kernels.bench.workers import fatal, note, reason
from pallas_kernels.machine import clocks, copied
from pallas_kernels.roofline import markdown
from pallas_kernels.two_four import compress, dispatch, expand
from pallas_kernels.two_four.mosaic_gpu import ceilings as kernels
from pallas_kernels.two_four.mosaic_gpu.ceilings import (
  DENSE_K,
  DENSE_STAGES,
  KEPT,
  ROWS,
  SPARSE_STAGES,
  TILE_N,
)
from pallas_kernels.two_four.mosaic_gpu.instructions import Instructions
from pallas_kernels.two_four.packed import TILE_K, TwoFour

STEPS, BLOCKS = 1200, 20  # 0.7 to 1.3 ms; 16 MB that `copies` goes through
FEW_STEPS, FEW_BLOCKS = 6, 4  # emulated
LARGEST_ERROR = 1e-2  # of sums of random numbers in float32
DENSE, WAITING, IN_FLIGHT = 'dense products', 'sparse products', 'sparse products in flight'
COPIES, MULTICAST = 'copies', 'copies by clusters of 2'
PEAKS, TIMING = 'peaks', 'timing'

Record = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Ceiling:
  """A kernel, its operands, and what its result must be.

  Attributes:
    function: of the operands -> outputs, of which the last are clocks.
    inputs: (exact: no sum is rounded) -> the operands.
    expected: of the operands -> outputs without the clocks, by NumPy.
    clocks: of a step, as machine.py counts them.
    bytes: of a step, copied into shared memory.
    bounds: what its rate is a bound of.
  """

  function: Callable
  inputs: Callable[[bool], tuple]
  expected: Callable[..., list[np.ndarray]]
  clocks: float
  bytes: float
  bounds: str


def ceilings(steps: int = STEPS, blocks: int = BLOCKS) -> dict[str, Ceiling]:
  """By name; `steps` a multiple of 6, `blocks` how many different ones are copied."""
  emulate = dispatch.is_emulated()
  moved = float(copied(ROWS, TILE_N, sparse=True))
  dense, sparse = (clocks(ROWS, TILE_N, kind) for kind in (False, True))

  def product(function, rounds, inputs, expected, count, bounds, **options):
    function = functools.partial(function, rounds=rounds, emulate=emulate, **options)
    expected = functools.partial(expected, rounds=rounds)
    return Ceiling(function, inputs, expected, count, 0.0, bounds)

  def copying(cluster, bounds):
    options = {'steps': steps, 'cluster': cluster, 'emulate': emulate}
    function = functools.partial(kernels.copies, **options)
    inputs = functools.partial(_copies_inputs, blocks, cluster)
    expected = functools.partial(_copies_expected, steps=steps)
    return Ceiling(function, inputs, expected, sparse.writes, moved, bounds)

  rounds = steps * (TILE_K // DENSE_K) // DENSE_STAGES
  packed = kernels.sparse, steps // SPARSE_STAGES, _sparse_inputs, _sparse_expected
  return {
    DENSE: product(
      *(kernels.dense, rounds, _dense_inputs, _dense_expected, dense.resident),
      'dense kernels of this tile, were copies free',
    ),
    WAITING: product(*packed, sparse.resident, '`matmul`, were copies free', in_flight=0),
    IN_FLIGHT: product(
      *packed, sparse.resident, 'the same, did it wait for a step later', in_flight=1
    ),
    COPIES: copying(1, '`matmul`, were products free'),
    MULTICAST: copying(2, 'the same in clusters of two'),
  }


def _random(exact: bool, *shapes: tuple[int, int]) -> list[jax.Array]:
  """bf16 of both signs, so that long sums stay finite; exact ones multiples of 1/4."""
  keys = jax.random.split(jax.random.key(0), len(shapes))
  if exact:
    integers = [jax.random.randint(key, x, -2, 3) for key, x in zip(keys, shapes)]
    return [(x / 4).astype(jnp.bfloat16) for x in integers]
  return [jax.random.normal(key, x, jnp.bfloat16) for key, x in zip(keys, shapes)]


def _dense_inputs(exact: bool) -> tuple:
  K = DENSE_STAGES * DENSE_K
  return tuple(_random(exact, (ROWS, K), (K, TILE_N)))


def _packed_inputs(exact: bool, M: int, K: int, N: int) -> tuple:
  x, b = _random(exact, (M, K), (K, N))
  packed = compress(x, axis=1, implementation='xla')
  return packed.values, packed.metadata, b


def _sparse_inputs(exact: bool) -> tuple:
  return _packed_inputs(exact, ROWS, SPARSE_STAGES * TILE_K, TILE_N)


def _copies_inputs(blocks: int, cluster: int, exact: bool) -> tuple:
  rows, columns = kernels.tiles(Instructions(dispatch.is_emulated()), cluster)
  return _packed_inputs(exact, rows * ROWS, blocks * TILE_K, columns * TILE_N)


def _dense_expected(a, b, *, rounds: int) -> list[np.ndarray]:
  """The same of every CTA."""
  return [rounds * (np.asarray(a, np.float64) @ np.asarray(b, np.float64))]


def _sparse_expected(values, metadata, b, *, rounds: int) -> list[np.ndarray]:
  packed = TwoFour(values, metadata, 1, (ROWS, b.shape[0]))
  return _dense_expected(expand(packed, implementation='xla'), b, rounds=rounds)


def _copies_expected(values, metadata, b, *, steps: int) -> list[np.ndarray]:
  """What the last step copied of each operand, for each tile."""
  k = (steps - 1) % metadata.shape[0]
  rows, columns = values.shape[0] // ROWS, b.shape[1] // TILE_N
  values, metadata, b = (np.asarray(x) for x in (values, metadata, b))
  return [
    np.tile(values[:, k * KEPT : (k + 1) * KEPT], (1, columns)),
    np.tile(metadata[k], (columns, 1, 1)),
    np.tile(b[k * TILE_K : (k + 1) * TILE_K], (rows, 1)),
  ]


def operands(ceiling: Ceiling, exact: bool) -> tuple:
  """By one program, which takes less time than one for each operation."""
  return jax.block_until_ready(jax.jit(ceiling.inputs, static_argnums=0)(exact))


def error(outputs: Sequence[Any], expected: list[np.ndarray]) -> float:
  """||output - expected|| / ||expected||, the largest; infinite or NaN if an output is."""
  found = []
  for out, wanted in zip(outputs, expected, strict=True):
    out = np.asarray(out).astype(np.float64)
    wanted = np.broadcast_to(wanted.astype(np.float64), out.shape)
    found.append(np.linalg.norm(out - wanted) / np.linalg.norm(wanted))
  return float(np.max(found))


def measure(repetitions: int, timer: str, skip: Sequence[str] = ()) -> Record:
  """All ceilings, in turns; one that fails or is wrong says why, and the others go on.

  Args:
    skip: names that are left out; `note` gives them before each.
  """
  record = {'steps': STEPS, 'multiprocessors': kernels.cta_count(Instructions())}
  record['peaks'] = _attempt(PEAKS, skip, timing.measure_peaks, repetitions, timer)
  entries = record['ceilings'] = {}
  calls = {}
  for name, ceiling in ceilings().items():
    entries[name] = _attempt(name, skip, _checked, ceiling, calls, name)
  note(TIMING)
  measured = {} if TIMING in skip else timing.in_turns(calls, repetitions, timer)
  for name, times in measured.items():
    entries[name] |= times
    entries[name] |= _rates(ceilings()[name], times['us']['median'], record, entries[name])
  return record


def _attempt(name: str, skip: Sequence[str], function: Callable, *args: Any) -> Record:
  """What the function returns, or {'failed': why}; an error that stays ends the process."""
  if name in skip:
    return {'failed': 'left out'}
  note(name)
  try:
    return function(*args)
  except Exception as error:
    if fatal(error):
      raise
    return {'failed': reason(error)}


def _checked(ceiling: Ceiling, calls: timing.Calls, name: str) -> Record:
  """Its error and the clocks of a step; among those to be timed if it is right."""
  inputs = operands(ceiling, exact=False)
  program = compiled(ceiling.function, inputs, name)
  *outputs, took = jax.block_until_ready(program(*inputs))
  note(name)  # the limit of a run is not that of NumPy
  wrong = error(outputs, ceiling.expected(*inputs))
  if not wrong <= LARGEST_ERROR:
    return {'failed': f'its result is wrong: error {wrong:.2g}'}
  calls[name] = timing.Timed(program, [inputs], ceiling.function)
  # Of each CTA the later warpgroup.
  last = np.asarray(took).astype(np.uint32).reshape(-1, kernels.WARPGROUPS).max(axis=1)
  clocks_of_step = round(float(np.median(last)) / STEPS, 1)
  return {'error': float(f'{wrong:.3g}'), 'clocks': clocks_of_step}


def _rates(ceiling: Ceiling, us: float, record: Record, entry: Record) -> Record:
  """What follows from a time, and from the clocks that were counted."""
  steps = STEPS * record['multiprocessors']
  tflops = 2 * ROWS * TILE_N * TILE_K * steps / us / 1e6
  # The launch, the first copies and the output are in the time, not among the clocks.
  found = {'tflops': round(tflops, 1), 'ghz': round(entry['clocks'] * STEPS / us / 1e3, 3)}
  if ceiling.bytes:
    found['tb_per_s'] = round(ceiling.bytes * steps / us / 1e6, 2)
    found['bytes_per_clock'] = round(ceiling.bytes / entry['clocks'], 1)
  if peak := record['peaks'].get('matmul_tflops'):
    found['of_xla_dense'] = round(tflops / peak, 3)
  return found


ABOUT = (
  'Parts of a kernel alone, on every multiprocessor. TFLOP/s count the FLOPs of the dense '
  'operation that the steps belong to, TB/s what is copied into shared memory. A step is '
  'K = 128 of 128 x 256, and `counted` are its clocks by `pallas_kernels/machine.py`. The '
  'clock is at least that in GHz, since a launch takes time and no clocks of a step.'
)
COLUMNS = {  # of a measured ceiling
  'TFLOP/s': ('tflops', '.0f'),
  'of XLA dense': ('of_xla_dense', '.2f'),
  'TB/s': ('tb_per_s', '.2f'),
  'B a clock': ('bytes_per_clock', '.1f'),
  'clocks a step': ('clocks', '.0f'),
  'counted': ('counted', '.0f'),
  'GHz': ('ghz', '.2f'),
}


def render(record: Record) -> str:
  """The record as Markdown."""
  rows, failed = [], []
  for name, ceiling in ceilings().items():
    entry = record['ceilings'][name] | {'counted': ceiling.clocks}
    if 'failed' in entry:
      failed.append(f'- {name}: {entry["failed"]}')
    if 'us' in entry:
      rows.append(_row(name, entry['us'], entry, ceiling.bounds))
  peaks = record['peaks']
  if 'failed' in peaks:
    failed.append(f'- {PEAKS}: {peaks["failed"]}')
  else:
    times, tflops = peaks['times'], peaks['matmul_tflops']
    found = {'tflops': tflops, 'of_xla_dense': 1.0}
    rows.append(_row('XLA dense', times['matmul']['us'], found, 'dense products'))
    found = {'tb_per_s': peaks['bandwidth_tb']}
    rows.append(_row('copy', times['copy']['us'], found, 'passes over memory'))
  table = markdown(['alone', 'us', 'least', 'most', *COLUMNS, 'bounds'], rows)
  parts = ['# Ceilings', ABOUT, table, verdict(record)]
  parts += ['## Failed\n\n' + '\n'.join(failed)] if failed else []
  return '\n\n'.join(part for part in parts if part) + '\n'


def _row(name: str, us: Record, entry: Record, bounds: str) -> list[str]:
  times = [f'{us[kind]:.1f}' for kind in ('median', 'min', 'max')]
  cells = [format(entry[k], form) if k in entry else '-' for k, form in COLUMNS.values()]
  return [name, *times, *cells, bounds]


def verdict(record: Record) -> str:
  """The gain that products and copies leave to a sparse kernel; '' without all clocks."""
  counts = {name: entry.get('clocks') for name, entry in record['ceilings'].items()}
  if not all(counts.get(name) for name in (DENSE, WAITING, COPIES)):
    return ''
  dense, products, copies = counts[DENSE], counts[WAITING], counts[COPIES]
  both, larger = products + copies, max(products, copies)
  return (
    f'Sparse products take {products:.0f} clocks a step and copies {copies:.0f}, dense '
    f'products {dense:.0f}. At the same clock `matmul` gains {dense / both:.2f} where '
    f'neither goes beside the other, and at most {dense / larger:.2f}.'
  )


def dry_run() -> list[str]:
  """Every kernel emulated on a CPU, at few steps: a line for each.

  Raises:
    AssertionError: if one does not equal NumPy.
  """
  lines = []
  with dispatch.emulated():
    for name, ceiling in ceilings(FEW_STEPS, FEW_BLOCKS).items():
      inputs = operands(ceiling, exact=True)
      *outputs, _ = jax.block_until_ready(ceiling.function(*inputs))
      wrong = error(outputs, ceiling.expected(*inputs))
      if wrong:
        raise AssertionError(f'{name}: error {wrong:.2g} where sums are exact')
      lines.append(f'{name}: emulated, equals NumPy')
  return lines
