"""Whether a kernel's result is that of the reference: on one run, and on many.

Errors are ||out - expected|| / ||expected||, of everything and of the worst row and column;
packed results that were pruned here must be equal bit by bit.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pallas_kernels.bench.peers import EXACT_INPUTS
from pallas_kernels.bench.programs import (
  RUNS,
  compiled,
  differing,
  differing_runs,
  run_poisoned,
)
from pallas_kernels.bench.workers import REPEAT_SECONDS, note
from pallas_kernels.two_four import compress_both, feed_forward
from pallas_kernels.two_four.cases import Case

# bf16 rounds to 0.2 %; one wrong entry of a row of 2048 is 3 % of the row.
LARGEST_ERROR, LARGEST_ROW_ERROR = 1e-2, 2e-2
PRUNING = ('compress', 'up_compress')  # their results are compared bit by bit
SHOWN = 8
# Else XLA may skip a rounding to bf16, and of two entries that it makes equal the one or
# the other is kept.
STRICT = {'xla_allow_excess_precision': False}


def strict(function: Callable) -> Callable:
  """The function by XLA, every rounding kept."""
  return jax.jit(function, compiler_options=STRICT)


def case_inputs(case: Case, seed: int, exact: bool | None = None) -> tuple:
  """`exact` unless told: where the result would depend on the order of a sum."""
  exact = case.op in EXACT_INPUTS if exact is None else exact
  return jax.jit(lambda seed: case.inputs(exact, seed))(seed)


def compare(out: Any, expected: Any, bits: bool) -> dict[str, Any]:
  """The verdict: {'passed', 'error', 'worst_row', 'worst_column'}, and where it is wrong.

  Args:
    out, expected: arrays or packed matrices, or tuples of these.
    bits: they must be equal.
  """
  pairs = list(zip(jax.tree.leaves(out), jax.tree.leaves(expected), strict=True))
  for x, y in pairs:
    if x.shape != y.shape or x.dtype != y.dtype:
      return {'passed': False, 'where': f'{x.dtype}{x.shape}, not {y.dtype}{y.shape}'}
  worst = {'error': 0.0, 'worst_row': 0.0, 'worst_column': 0.0}
  passed, details = True, []
  for x, y in pairs:
    if bits or x.dtype == jnp.uint32:
      right = not int(differing(x, y))
      errors = {}
    else:
      errors = {k: float(v) for k, v in _errors(x, y).items()}
      limit = {'error': LARGEST_ERROR}
      right = all(v <= limit.get(k, LARGEST_ROW_ERROR) for k, v in errors.items())
    worst |= {k: _larger(worst[k], v) for k, v in errors.items()}
    passed = passed and right
    if not right:
      details.append(where(np.asarray(x), np.asarray(y)))
  result = {'passed': passed} | {k: float(f'{v:.3g}') for k, v in worst.items()}
  return result | ({'where': details} if details else {})


def _larger(a: float, b: float) -> float:
  return b if b != b else max(a, b)  # NaN stays


@jax.jit
def _errors(out: jax.Array, expected: jax.Array) -> dict[str, jax.Array]:
  x, y = (v.astype(jnp.float32).reshape(-1, v.shape[-1]) for v in (out, expected))
  whole = jnp.linalg.norm(y)
  # By what a row has on average: some rows may be nearly zero.
  largest = lambda axis: jnp.max(jnp.linalg.norm(x - y, axis=axis))
  return {
    'error': jnp.linalg.norm(x - y) / whole,
    'worst_row': largest(1) / whole * y.shape[0] ** 0.5,
    'worst_column': largest(0) / whole * y.shape[1] ** 0.5,
  }


def where(out: np.ndarray, expected: np.ndarray) -> dict[str, Any]:
  """The pattern of what is wrong, for one who cannot look at the device."""
  whole = out.dtype == np.uint32
  x, y = (v if whole else v.astype(np.float32) for v in (out, expected))
  tolerance = 0 if whole else 0.02 * np.abs(y) + 0.02 * np.abs(y).mean()
  wrong = x != y if whole else ~(np.abs(x - y) <= tolerance)
  if not wrong.any():  # bits differ, though no entry by much
    wrong = x != y
  indices = np.argwhere(wrong)
  show = hex if whole else float
  result = {
    'shape': list(x.shape),
    'wrong': len(indices),
    'first': [
      [*map(int, i), show(x[tuple(i)]), show(y[tuple(i)])] for i in indices[:SHOWN]
    ],
  }
  for axis, size in enumerate(x.shape):
    for period in (8, 64, 128):
      if size >= period:
        residues = np.unique(indices[:, axis] % period)
        if 0 < len(residues) < period:  # only part of them: this names the part
          result[f'axis {axis} mod {period}'] = residues[:16].tolist()
  return result


def check(ours: Callable, reference: Callable, inputs: tuple, bits: bool, runs: int):
  """A kernel against the reference, and against itself on `runs` runs."""
  expected = jax.block_until_ready(strict(reference)(*inputs))
  program = compiled(ours, inputs)
  out = run_poisoned(program, inputs)
  note('comparing')
  result = compare(out, expected, bits)
  note('repeating', REPEAT_SECONDS)
  result['differing_runs'] = differing_runs(program, inputs, runs) if runs else None
  result['passed'] = result['passed'] and not result['differing_runs']
  return result


def check_case(case: Case, seed: int, runs: int = RUNS) -> dict[str, Any]:
  functions = case.function('mosaic'), case.function('xla')
  return check(*functions, case_inputs(case, seed), case.op in PRUNING, runs)


def check_both(T: int, F: int, rule: str, seed: int, runs: int = RUNS) -> dict[str, Any]:
  """The packing along both axes at once."""
  inputs = case_inputs(Case('compress', {'T': T, 'F': F}, {'axis': 1}), seed)
  both = lambda which: lambda y: compress_both(y, rule=rule, implementation=which)
  return check(both('mosaic'), both('xla'), inputs, True, runs)


def check_gradients(
  shape: tuple[int, ...], backward: str, seed: int, runs: int = RUNS
) -> dict[str, Any]:
  """Output and all gradients of feed_forward, shape (T, R, F, N)."""
  T, R, F, N = shape
  inputs = case_inputs(Case('feed_forward', dict(zip('TRFN', shape))), seed)
  cotangent = case_inputs(Case('compress', {'T': T, 'F': N}), seed + 1, exact=True)

  def gradients(which):
    def function(g, *inputs):
      out, back = jax.vjp(lambda *x: feed_forward(*x, backward, which), *inputs)
      return out, back(g)

    return function

  inputs = *cotangent, *inputs
  return check(gradients('mosaic'), gradients('xla'), inputs, False, runs)
