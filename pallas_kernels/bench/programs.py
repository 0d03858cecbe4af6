"""Compiled programs whose runs may hang: the caller is told when one is about to run."""

from collections.abc import Callable, Mapping
from concurrent import futures
from typing import Any

import jax
import jax.numpy as jnp

from pallas_kernels.bench.workers import RUN_SECONDS, note
from pallas_kernels.two_four.dispatch import is_emulated

RUNS = 20
COMPILERS = 8  # threads; for our kernels only, nothing is autotuned meanwhile


def compiled(
  function: Callable, args: tuple, part: str = '', options: Mapping[str, Any] | None = None
) -> jax.stages.Compiled:
  """The program for such arguments; what follows is a run, which is short or hangs.

  (An emulated one may take long.)

  Args:
    part: what the caller is told; by default what is being done.
    options: of the compiler.
  """
  note(part or 'compiling')
  program = jax.jit(function, compiler_options=options).lower(*args).compile()
  note(part or 'running', None if is_emulated() else RUN_SECONDS)
  return program


def compile_all(
  functions: list[tuple[Callable, tuple]],
) -> list[jax.stages.Compiled | Exception]:
  """The program of each function and its arguments, or the error that it met."""
  lowered = [_try(lambda f=f, x=args: jax.jit(f).lower(*x)) for f, args in functions]
  build = lambda x: x if isinstance(x, Exception) else _try(x.compile)
  with futures.ThreadPoolExecutor(COMPILERS) as pool:
    return list(pool.map(build, lowered))


def _try(function: Callable) -> Any:
  """Any error: a tile may be refused by whoever sees first that it does not fit."""
  try:
    return function()
  except Exception as error:
    return error


def run_poisoned(program: jax.stages.Compiled, args: tuple) -> Any:
  """A run whose outputs lie where NaNs lay: what it does not write is seen."""
  shapes = jax.tree.leaves(program.out_info)
  value = lambda dtype: 0xFFFFFFFF if dtype == jnp.uint32 else jnp.nan
  poison = [jnp.full(s.shape, value(s.dtype), s.dtype) for s in shapes]
  jax.block_until_ready(poison)
  del poison
  return jax.block_until_ready(program(*args))


def differing_runs(function: Callable, args: tuple, runs: int = RUNS) -> int:
  """How many of several runs on the same inputs differ in any bit from the first."""
  first = jax.tree.leaves(function(*args))
  count = 0
  for _ in range(runs - 1):
    again = jax.tree.leaves(function(*args))
    count += any(int(differing(x, y)) for x, y in zip(again, first))
  return count


@jax.jit
def differing(x: jax.Array, y: jax.Array) -> jax.Array:
  """How many elements have other bits."""
  kind = {2: jnp.uint16, 4: jnp.uint32}[x.dtype.itemsize]
  bits = [jax.lax.bitcast_convert_type(v, kind) for v in (x, y)]
  return jnp.sum(bits[0] != bits[1])
