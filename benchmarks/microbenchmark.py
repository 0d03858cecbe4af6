"""What the benchmarks of single layers share: command line, timing, result files."""

import pathlib
import re
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import jax

from elas_jax.common.places import write_text
from elas_jax.config.cli import Parser, integer
from elas_jax.run.metrics import describe_run, machine, strict_json

SMOKE_REPETITIONS, REPETITIONS = 3, 20


def compiled(function: Callable, *inputs: Any) -> Callable:
  return jax.jit(function).lower(*inputs).compile()


def temporary_bytes(program: Callable) -> int:
  """Beside arguments and results, by the compiler's memory analysis."""
  return program.memory_analysis().temp_size_in_bytes


def seconds_in_turns(
  programs: dict[str, tuple[Callable, tuple]], repetitions: int
) -> dict[str, dict[str, float]]:
  """By name, of compiled (program, inputs); in turns, so that all see the same machine."""
  seconds = {name: [] for name in programs}
  for repetition in range(repetitions + 1):
    for name, (program, inputs) in programs.items():
      start = time.perf_counter()
      jax.block_until_ready(program(*inputs))
      if repetition:  # the first is a warm-up
        seconds[name].append(time.perf_counter() - start)
  return {
    name: {
      'median': statistics.median(times),
      'min': min(times),
      'max': max(times),
      'repetitions': repetitions,
    }
    for name, times in seconds.items()
  }


def milliseconds(seconds: dict[str, float]) -> str:
  """'1.23 [1.1, 1.5]': median and range."""
  median, low, high = (f'{seconds[x] * 1e3:.3g}' for x in ('median', 'min', 'max'))
  return f'{median} [{low}, {high}]'


def run(
  name: str,
  title: str,
  cases: Callable[[bool, int], Iterable[dict[str, Any]]],
  table: Callable[[list[dict[str, Any]]], list[str]],
  arguments: list[str] | None,
) -> None:
  """The command: measures `cases`(smoke, repetitions) and writes them with their table."""
  parser = Parser(prog=f'python -m benchmarks.{name}', description=title)
  add = parser.add_argument
  add('--smoke', action='store_true', help='tiny shapes, three repetitions')
  count = integer(1, 10_000)
  add('--repetitions', type=count, help=f'of each program; default: {REPETITIONS}')
  parser.add_place('--output', help='folder of the result files')
  options = parser.parse_args(arguments)
  repetitions = options.repetitions or (SMOKE_REPETITIONS if options.smoke else REPETITIONS)
  # What a smoke run writes looks like a result and is none.
  usual = 'runs/smoke/results' if options.smoke else 'benchmarks/results'
  folder = pathlib.Path(options.output or f'{usual}/{name}')
  result = {'run': describe_run(), 'machine': machine(), 'smoke': options.smoke}
  result |= {'repetitions': repetitions, 'cases': []}
  for case in cases(options.smoke, repetitions):
    print(f'measured {case["name"]}', flush=True)
    result['cases'].append(case)
  folder.mkdir(parents=True, exist_ok=True)
  path = folder / re.sub(r'[^a-z0-9]+', '_', result['machine'].lower()).strip('_')
  write_text(path.with_suffix('.json'), strict_json(result, indent=2) + '\n')
  text = '\n'.join([*_head(name, title, result), *table(result['cases'])]) + '\n'
  write_text(path.with_suffix('.md'), text)
  print(f'{text}\nwritten to {path}.json and .md')


def _head(name: str, title: str, result: dict[str, Any]) -> list[str]:
  run = result['run']
  smoke = ' --smoke' if result['smoke'] else ''
  head = [
    f'# {title}, on {result["machine"]}',
    '',
    f'Commit {run["commit"]}, {run["time"]}, jax {run["versions"]["jax"]}; '
    f'{result["repetitions"]} repetitions in turns, median [minimum, maximum]. Made by '
    f'`python -m benchmarks.{name}{smoke}`.',
    '',
  ]
  if result['smoke']:
    head += ['A smoke run: shows that the script works, and is no measurement.', '']
  return head
