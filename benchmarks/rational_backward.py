"""The backward pass of the rational layer (KAT): its time and its memory, beside others'.

  python -m benchmarks.rational_backward [--smoke] [--repetitions=20] [--output=DIR]

Writes benchmarks/results/rational_backward/MACHINE.json and .md (a smoke run:
runs/smoke/results/rational_backward/). Each row is the gradient of one function by its
input and coefficients, of (rows, width) arrays; that includes its forward pass as far as
the gradient needs it. Three rows of ours tell the parts of its time apart: what the sums
over rows for the coefficients cost is FlashKAT's question (arXiv 2505.13813).

  ours      ops/rational.py: saves the input, sums coefficient gradients as trees
  forward   ours, without a gradient
  by input  ours, with the gradient by the input alone
  horner    the same formula, differentiated by JAX
  powers    sums of powers and a quotient, differentiated by JAX
  silu      jax.nn.silu, which has no coefficients

  time        of the compiled program, median with [minimum, maximum]
  temporary   bytes beside arguments and results, by the compiler's memory analysis
  saved       bytes that forward keeps for backward, from the traced vjp, each array once

Hardware: any; a minute on two cores. Expected on a CPU: ours below both other rationals
in time, saved and temporary bytes, and about ten times the time of SiLU.
"""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Var

from benchmarks import microbenchmark
from elas_jax.config.cli import run_command
from elas_jax.ops.rational import preset, rational

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


PARTS = {
  'forward': lambda x, a, b, g: rational(x, a, b),
  'by input': lambda x, a, b, g: jax.vjp(lambda x: rational(x, a, b), x)[1](g),
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


def cases(smoke: bool, repetitions: int) -> Iterator[dict[str, Any]]:
  for name, shape in (SMOKE if smoke else SHAPES).items():
    for dtype in DTYPES:
      functions = measure(shape, dtype, repetitions)
      yield {'name': name, 'shape': shape, 'dtype': dtype, 'functions': functions}


def measure(shape: tuple[int, int], dtype: str, repetitions: int) -> dict[str, Any]:
  inputs = arrays(*shape, dtype)
  programs = {}
  for name, function in FUNCTIONS.items():
    gradient = lambda x, a, b, g, function=function: jax.vjp(function, x, a, b)[1](g)
    programs[name] = microbenchmark.compiled(gradient, *inputs), inputs
  for name, part in PARTS.items():
    programs[name] = microbenchmark.compiled(part, *inputs), inputs
  seconds = microbenchmark.seconds_in_turns(programs, repetitions)
  return {
    name: {
      'temporary_bytes': microbenchmark.temporary_bytes(program),
      'saved_bytes': saved_bytes(FUNCTIONS[name], *inputs[:-1]) if name in FUNCTIONS else 0,
      'seconds': seconds[name],
    }
    for name, (program, _) in programs.items()
  }


def table(found: list[dict[str, Any]]) -> list[str]:
  lines = [
    f'{GROUPS} groups.',
    '',
    '| shape | dtype | function | ms | to ours | temporary MB | saved MB |',
    '|---|---|---|---|---|---|---|',
  ]
  for case in found:
    base = case['functions'][BASE]['seconds']['median']
    for name, cell in case['functions'].items():
      saved = f'{cell["saved_bytes"] / 1e6:.3f}' if name in FUNCTIONS else '-'
      size = ' x '.join(map(str, case['shape']))
      lines.append(
        f'| {case["name"]} ({size}) | {case["dtype"]} | {name} | '
        f'{microbenchmark.milliseconds(cell["seconds"])} | '
        f'{cell["seconds"]["median"] / base:.2f} | {cell["temporary_bytes"] / 1e6:.3f} | '
        f'{saved} |'
      )
  return lines


def main(arguments: list[str] | None = None) -> None:
  title = 'Backward pass of the rational layer of KAT'
  microbenchmark.run('rational_backward', title, cases, table, arguments)


if __name__ == '__main__':
  run_command(main)
