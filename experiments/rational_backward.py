"""The backward pass of the rational layer (KAT): its time and its memory, beside others'.

  python -m experiments.rational_backward [--smoke] [--repetitions=20] [--output=DIR]

Writes experiments/results/rational_backward/MACHINE.json and .md (a smoke run:
runs/smoke/results/rational_backward/). Each row is the gradient of one function by its
input and coefficients, of (rows, width) arrays; that includes its forward pass as far as
the gradient needs it.

  ours      ops/rational.py: saves the input, sums coefficient gradients as trees
  horner    the same formula, differentiated by JAX
  powers    sums of powers and a quotient, differentiated by JAX
  silu      jax.nn.silu, which has no coefficients

  time        of the compiled program, median with [minimum, maximum]; the rows in turns,
              so that all see the same machine
  temporary   bytes beside arguments and results, by the compiler's memory analysis
  saved       bytes that forward keeps for backward, from the traced vjp, each array once

Hardware: any; a minute on two cores. Expected on a CPU: ours below both other rationals
in time, saved and temporary bytes, and about ten times the time of SiLU.
"""

import functools
import json
import math
import pathlib
import re
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Var

from elas_jax.cli import Parser, run_command
from elas_jax.errors import UserError
from elas_jax.metrics import describe_run
from elas_jax.ops.rational import preset, rational
from elas_jax.workdir import write_text
from experiments.harness import machine

GROUPS = 8
SHAPES = {'KAT-T, 8 images': (8 * 197, 768), 'KAT-S, 16 images': (16 * 197, 1536)}
SMOKE = {'smoke': (64, 32)}
DTYPES = ('float32', 'bfloat16')
BASE = 'ours'


def horner(x: jax.Array, a_1x6: jax.Array, b_Gx4: jax.Array) -> jax.Array:
  t = _groups(x)
  evaluate = lambda c, t: functools.reduce(lambda y, one: y * t + one, reversed(c))
  q = 1 + jnp.abs(t) * evaluate(_columns(jnp.abs(b_Gx4)), jnp.abs(t))
  return (evaluate(_columns(a_1x6), t) / q).reshape(x.shape).astype(x.dtype)


def powers(x: jax.Array, a_1x6: jax.Array, b_Gx4: jax.Array) -> jax.Array:
  t = _groups(x)
  p = sum(a * t**i for i, a in enumerate(_columns(a_1x6)))
  terms = (jnp.abs(b * t**j) for j, b in enumerate(_columns(b_Gx4), 1))
  return (p / (1 + sum(terms))).reshape(x.shape).astype(x.dtype)


def silu(x: jax.Array, a_1x6: jax.Array, b_Gx4: jax.Array) -> jax.Array:
  return jax.nn.silu(x)


FUNCTIONS: dict[str, Callable] = {
  BASE: rational,
  'horner': horner,
  'powers': powers,
  'silu': silu,
}


def _groups(x: jax.Array) -> jax.Array:
  return x.astype(jnp.float32).reshape(x.shape[0], GROUPS, -1)


def _columns(c_GxS: jax.Array) -> list[jax.Array]:
  return [c_GxS[None, :, i, None] for i in range(c_GxS.shape[1])]


def arrays(rows: int, width: int, dtype: str) -> tuple[jax.Array, ...]:
  """(x, a, b, cotangent of the result); the function starts as swish."""
  keys = jax.random.split(jax.random.key(0))
  x, g = (jax.random.normal(key, (rows, width), dtype) for key in keys)
  a, b = preset('swish', 'absolute_terms')
  return x, jnp.array([a]), jnp.tile(jnp.array([b]), (GROUPS, 1)), g


def saved_bytes(function: Callable, x: jax.Array, *coefficients: jax.Array) -> int:
  """Of the residuals of a traced vjp, each array once."""
  jaxpr = jax.make_jaxpr(lambda *inputs: jax.vjp(function, *inputs))(x, *coefficients).jaxpr
  kept = dict.fromkeys(v for v in jaxpr.outvars[1:] if isinstance(v, Var))
  return sum(math.prod(v.aval.shape) * v.aval.dtype.itemsize for v in kept)


def measure(shape: tuple[int, int], dtype: str, repetitions: int) -> dict[str, Any]:
  inputs = arrays(*shape, dtype)
  compiled, cells, seconds = {}, {}, {name: [] for name in FUNCTIONS}
  for name, function in FUNCTIONS.items():
    gradient = lambda x, a, b, g, function=function: jax.vjp(function, x, a, b)[1](g)
    compiled[name] = jax.jit(gradient).lower(*inputs).compile()
    jax.block_until_ready(compiled[name](*inputs))
    cells[name] = {
      'temporary_bytes': compiled[name].memory_analysis().temp_size_in_bytes,
      'saved_bytes': saved_bytes(function, *inputs[:-1]),
    }
  for _ in range(repetitions):
    for name, program in compiled.items():
      start = time.perf_counter()
      jax.block_until_ready(program(*inputs))
      seconds[name].append(time.perf_counter() - start)
  for name, times in seconds.items():
    cells[name]['seconds'] = {
      'median': statistics.median(times),
      'min': min(times),
      'max': max(times),
      'repetitions': repetitions,
    }
  return cells


def table(result: dict[str, Any]) -> str:
  run = result['run']
  lines = [
    f'# Backward pass of the rational layer on {result["machine"]}',
    '',
    f'Commit {run["commit"]}, {run["time"]}, jax {run["versions"]["jax"]}; {GROUPS} '
    f'groups, {result["repetitions"]} repetitions. Made by `python -m '
    f'experiments.rational_backward{" --smoke" if result["smoke"] else ""}`.',
    '',
    '| shape | dtype | function | ms | to ours | temporary MB | saved MB |',
    '|---|---|---|---|---|---|---|',
  ]
  for case in result['cases']:
    base = case['functions'][BASE]['seconds']['median']
    for name, cell in case['functions'].items():
      s = cell['seconds']
      span = f'{s["median"] * 1e3:.3g} [{s["min"] * 1e3:.3g}, {s["max"] * 1e3:.3g}]'
      size = ' x '.join(map(str, case['shape']))
      lines.append(
        f'| {case["name"]} ({size}) | {case["dtype"]} | {name} | {span} | '
        f'{s["median"] / base:.2f} | {cell["temporary_bytes"] / 1e6:.3f} | '
        f'{cell["saved_bytes"] / 1e6:.3f} |'
      )
  if result['smoke']:
    lines += ['', 'A smoke run: shows that the script works, and is no measurement.']
  return '\n'.join(lines) + '\n'


def main(arguments: list[str] | None = None) -> None:
  parser = Parser(
    prog='python -m experiments.rational_backward', description=__doc__.split('\n')[0]
  )
  add = parser.add_argument
  add('--smoke', action='store_true', help='one tiny shape, three repetitions')
  add('--repetitions', type=int, help='of each program; default: 20')
  add('--output', help='folder of the result files')
  options = parser.parse_args(arguments)
  if options.repetitions is not None and options.repetitions < 1:
    raise UserError(f'--repetitions={options.repetitions}: must be at least 1')
  repetitions = options.repetitions or (3 if options.smoke else 20)
  # What a smoke run writes looks like a result and is none.
  usual = 'runs/smoke/results' if options.smoke else 'experiments/results'
  folder = pathlib.Path(options.output or f'{usual}/rational_backward')
  result = {'run': describe_run(), 'machine': machine(), 'smoke': options.smoke}
  result |= {'groups': GROUPS, 'repetitions': repetitions, 'cases': []}
  for name, shape in (SMOKE if options.smoke else SHAPES).items():
    for dtype in DTYPES:
      print(f'measuring {name}, {dtype}', flush=True)
      functions = measure(shape, dtype, repetitions)
      case = {'name': name, 'shape': shape, 'dtype': dtype, 'functions': functions}
      result['cases'].append(case)
  folder.mkdir(parents=True, exist_ok=True)
  path = folder / re.sub(r'[^a-z0-9]+', '_', result['machine'].lower()).strip('_')
  write_text(path.with_suffix('.json'), json.dumps(result, indent=2) + '\n')
  write_text(path.with_suffix('.md'), table(result))
  print(table(result))
  print(f'written to {path}.json and .md')


if __name__ == '__main__':
  run_command(main)
