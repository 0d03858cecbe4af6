"""A timer for where kernels cannot be traced: a program that calls a function in a loop.

The inputs of each call pass a barrier together with the result of the call before, so that
nothing is moved out of the loop; every result is kept, so that nothing is dropped. (To
write a number of the result into an input would be a true dependence, but costs a copy of
that input where the compiler does not write in place.) The loop is short and of a known
length; the time of a call is the difference of n and 2n runs of the program.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

TURNS = 8  # of the loop in a program
Calls = list[tuple[Callable, tuple]]  # functions and their arguments, one after the other


def looped(calls: Calls) -> jax.stages.Compiled:
  """The program that makes all calls in turn, TURNS times.

  Of the arguments of all, and of results that it writes over: to make room for its own
  would take time, which a short function is not to pay for.
  """
  functions = [function for function, _ in calls]

  def program(every: list[tuple], outs: list[Any]) -> list[Any]:
    def turn(_, state):
      every, outs = state
      before, passed, fresh = outs[-1], [], []
      for function, args in zip(functions, every):
        _, args = lax.optimization_barrier((before, args))
        before = function(*args)
        passed.append(args)
        fresh.append(before)
      return passed, fresh

    return lax.fori_loop(0, TURNS, turn, (every, outs))[1]

  every = [args for _, args in calls]
  return jax.jit(program, donate_argnums=1).lower(every, results(calls)).compile()


def results(calls: Calls) -> list[Any]:
  """Zeros for what the calls return."""
  shapes = [jax.eval_shape(function, *args) for function, args in calls]
  return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)


def microseconds(
  program: Callable, calls: Calls, count: int, clock: Callable[[], float] | None = None
) -> float:
  """Of one call: by `count` and by twice as many runs of the `looped` program.

  Raises:
    RuntimeError: where more runs took no more time.
  """
  clock = clock or time.perf_counter
  every, outs = [args for _, args in calls], results(calls)

  def seconds(runs: int) -> float:
    nonlocal outs
    jax.block_until_ready(outs)
    start = clock()
    for _ in range(runs):
      outs = program(every, outs)
    jax.block_until_ready(outs)
    return clock() - start

  more = seconds(2 * count) - seconds(count)
  if more <= 0:
    raise RuntimeError(f'{2 * count} runs of a loop took no longer than {count}')
  return more / (count * TURNS * len(calls)) * 1e6
