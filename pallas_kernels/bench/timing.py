"""Device times of several functions in turns, the peaks of the device, and memory."""

import dataclasses
import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from pallas_kernels.bench import loop
from pallas_kernels.bench.workers import REPEAT_SECONDS, fatal, note, reason

L2_BYTES = 60e6  # of an H200
MOST_SETS = 8
TURN_SECONDS = 0.02
LOOP_SECONDS = 60  # to compile a loop
CALLS = (4, 200)  # in flight in a turn
TIMERS = {  # each stands in for the one before it
  'cupti': "CUPTI: the sum of a call's kernels, without the gaps between them",
  'loop': 'a loop in one program, whose calls depend on each other: 2 n turns less n',
  'wall': 'wall clock over many calls in flight, divided by their number',
}


@dataclasses.dataclass(frozen=True)
class Timed:
  """What is timed: `program(*x)` for one x of `sets` after the other.

  Attributes:
    program: a compiled function, or one that calls several.
    sets: arguments, so many that the L2 cache does not hold them all.
    traced: what `program` was compiled from, for the timer that compiles it in a loop.
  """

  program: Callable
  sets: list[tuple]
  traced: Callable

  def __call__(self, number: int) -> Any:
    return self.program(*self.sets[number % len(self.sets)])


Calls = dict[str, Timed]


def rotating(jitted: Callable, sets: list[tuple]) -> Timed:
  """Of a jitted function, with one set of inputs after the other."""
  return Timed(jitted, sets, jitted)


def sets_needed(inputs: Any) -> int:
  """How many sets of such inputs do not fit in the L2 cache together, up to a few."""
  size = sum(x.nbytes for x in jax.tree.leaves(inputs))
  return max(1, min(MOST_SETS, -(-int(2 * L2_BYTES) // size)))


def in_turns(
  calls: Calls, repetitions: int, timer: str, part: str = ''
) -> dict[str, dict[str, Any]]:
  """Times every function once in each of several turns.

  Args:
    part: what the caller is told is being run; by default the function's name, by the
      clock, so that one that hangs is known, and 'timing' by the other timers.

  Returns:
    name -> {'us': {'median', 'min', 'max'} by `timer`, 'wall_us': the same by wall clock}.
    Where the timer fails, 'us' is by the next of TIMERS for all: 'timer' says by which, and
    'timer_failed' why.
  """
  counts = {}
  for name, call in calls.items():
    note(part or name, REPEAT_SECONDS)
    counts[name] = _count(call)

  def wall_of(name: str) -> float:
    note(part or name, REPEAT_SECONDS)
    return _wall(calls[name], counts[name])

  def turns(measure: Callable[[str], float]) -> dict[str, dict[str, float]]:
    samples = {name: [] for name in calls}
    for _, name in itertools.product(range(repetitions), calls):
      samples[name].append(measure(name))
    return {name: spread(values) for name, values in samples.items()}

  # First, since CUPTI slows down launches.
  wall = turns(wall_of)
  note(part or 'timing')
  more = {}
  for used in list(TIMERS)[list(TIMERS).index(timer) :]:
    try:
      us = wall if used == 'wall' else turns(_timer(used, calls, counts))
      break
    except RuntimeError as error:
      if fatal(error):
        raise
      more.setdefault('timer_failed', reason(error))
  if used != timer:
    more['timer'] = used
  return {name: {'us': us[name], 'wall_us': wall[name]} | more for name in calls}


def _timer(name: str, calls: Calls, counts: dict[str, int]) -> Callable[[str], float]:
  """Peer -> microseconds of one of its calls."""
  if name == 'cupti':
    return lambda peer: _kernels(calls[peer], counts[peer])
  pairs = {k: [(call.traced, args) for args in call.sets] for k, call in calls.items()}
  programs = {}
  for peer in calls:
    note('timing', LOOP_SECONDS)
    programs[peer] = loop.looped(pairs[peer])
    every = [args for _, args in pairs[peer]]
    jax.block_until_ready(programs[peer](every, loop.results(pairs[peer])))
  note('timing')
  runs = {k: max(1, counts[k] // (loop.TURNS * len(pairs[k]))) for k in calls}
  return lambda peer: loop.microseconds(programs[peer], pairs[peer], runs[peer])


def spread(values: list[float]) -> dict[str, float]:
  named = {'median': statistics.median(values), 'min': min(values), 'max': max(values)}
  return {name: round(value, 2) for name, value in named.items()}


def _count(call: Timed) -> int:
  """Calls for about TURN_SECONDS; the function is compiled by then."""
  jax.block_until_ready(call(0))
  start = time.perf_counter()
  jax.block_until_ready([call(i) for i in range(2)])
  seconds = (time.perf_counter() - start) / 2
  return int(min(max(TURN_SECONDS / seconds, CALLS[0]), CALLS[1]))


def _wall(call: Timed, count: int) -> float:
  start = time.perf_counter()
  for i in range(count):
    out = call(i)
  jax.block_until_ready(out)
  return (time.perf_counter() - start) / count * 1e6


def _kernels(call: Timed, count: int) -> float:
  """As jax.experimental.mosaic.gpu.profiler.measure, but with changing inputs."""
  from jax.experimental.mosaic.gpu import profiler

  cupti = profiler.mosaic_gpu_lib._mosaic_gpu_ext
  cupti._cupti_init()
  try:
    for i in range(count):
      out = call(i)
    jax.block_until_ready(out)
  finally:
    timings = cupti._cupti_get_timings(True)
  if not timings or len(timings) % count:
    raise RuntimeError(f'CUPTI: {len(timings or [])} kernels in {count} calls')
  return sum(milliseconds for _, milliseconds in timings) / count * 1e3


def probe_cupti() -> str:
  """Whether kernels can be timed, as a timer's name; a call of it may hang."""
  x = jax.random.normal(jax.random.key(0), (1 << 24,))
  call = rotating(jax.jit(lambda x: x + 1), [(x,)])
  jax.block_until_ready(call(0))
  kernels, wall = _kernels(call, 20), _wall(call, 20)
  if not 0 < kernels < 1.2 * wall + 5:
    raise RuntimeError(f'CUPTI says {kernels:.1f} us where the clock says {wall:.1f} us')
  return 'cupti'


def measure_peaks(repetitions: int, timer: str) -> dict[str, Any]:
  """What the device reaches on a copy and on a dense bf16 product, of random data."""
  x = jax.random.normal(jax.random.key(0), (1 << 29,), jnp.bfloat16)
  a = jax.random.normal(jax.random.key(1), (8192, 8192), jnp.bfloat16)
  calls = {
    'copy': rotating(jax.jit(lambda x: x + 1), [(x,)]),
    'matmul': rotating(jax.jit(jnp.dot), [(a, a)]),
  }
  times = in_turns(calls, repetitions, timer, part='peaks')
  copy, matmul = (times[name]['us']['median'] for name in calls)
  return {
    'times': times,
    'bandwidth_tb': round(2 * x.nbytes / copy / 1e6, 3),
    'matmul_tflops': round(2 * 8192**3 / matmul / 1e6, 1),
  }


def memory(program: jax.stages.Compiled, args: tuple) -> dict[str, int | None]:
  """Bytes that the compiled program needs, by the compiler's account and the allocator's.

  The allocator only knows the peak of the process, so that of a program shows only if it
  is the highest yet; else 'device_peak_bytes' is None.
  """
  analysis = program.memory_analysis()
  sizes = {
    f'{kind}_bytes': getattr(analysis, f'{kind}_size_in_bytes')
    for kind in ('argument', 'output', 'temp')
  }
  before = jax.devices()[0].memory_stats() or {}
  jax.block_until_ready(program(*args))
  after = jax.devices()[0].memory_stats() or {}
  rose = after.get('peak_bytes_in_use', 0) > before.get('peak_bytes_in_use', 0)
  peak = after['peak_bytes_in_use'] - before['bytes_in_use'] if rose else None
  return sizes | {'device_peak_bytes': peak}
