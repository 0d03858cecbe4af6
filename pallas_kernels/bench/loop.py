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
  """The program that makes all calls in turn, TURNS times; of the arguments of all."""
  functions = [function for function, _ in calls]

  def program(every: list[tuple]) -> list[Any]:
    def turn(_, state):
      every, outs = state
      before, passed, fresh = outs[-1], [], []
      for function, args in zip(functions, every):
        _, args = lax.optimization_barrier((before, args))
        before = function(*args)
        passed.append(args)
        fresh.append(before)
      return passed, fresh

    shapes = [jax.eval_shape(f, *args) for f, args in zip(functions, every)]
    outs = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    return lax.fori_loop(0, TURNS, turn, (every, outs))[1]

  return jax.jit(program).lower([args for _, args in calls]).compile()


def microseconds(
  program: Callable, calls: Calls, count: int, clock: Callable[[], float] | None = None
) -> float:
  """Of one call: by `count` and by twice as many runs of the `looped` program.

  Raises:
    RuntimeError: where more runs took no more time.
  """
  clock = clock or time.perf_counter
  every = [args for _, args in calls]

  def seconds(runs: int) -> float:
    start = clock()
    for _ in range(runs):
      out = program(every)
    jax.block_until_ready(out)
    return clock() - start

  more = seconds(2 * count) - seconds(count)
  if more <= 0:
    raise RuntimeError(f'{2 * count} runs of a loop took no longer than {count}')
  return more / (count * TURNS * len(calls)) * 1e6
