"""Named cases of the 2:4 operations, shared by tests, compile checks and benchmarks."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from pallas_kernels.roofline import SIZES
from pallas_kernels.two_four import fused, op
from pallas_kernels.two_four.packed import TILE_K, TwoFour

FULL_RANK = {'1b': (2048, 8192), '7b': (4096, 16384)}  # D, F of whole tiles
TOKENS = 16384


@dataclasses.dataclass(frozen=True)
class Case:
  """An operation, the letters of its shapes, and its options.

  compress      y (T, F)                             axis, rule, activation
  matmul        x (M, K) packed along K, b (K, N)    axis, transpose_b, out_dtype
  up_compress   x (T, K), w (K, F)                   transpose_w
  gated_backward  g (T, N), w (N, F), z (T, F)       transpose_w
  weight_gradient z (T, F), g (T, N)                 out_dtype
  feed_forward  s (T, R), up (R, F), down (F, N)
  """

  op: str
  shape: dict[str, int]
  options: dict[str, Any] = dataclasses.field(default_factory=dict)

  @property
  def name(self) -> str:
    words = [self.op, *(f'{k}{v}' for k, v in self.shape.items())]
    words += [f'{k}={_word(v)}' for k, v in self.options.items()]
    return '-'.join(words)

  def inputs(self, exact: bool = True, seed: int = 0) -> tuple:
    """Random bf16 operands; `exact`: multiples of 1/4, so that no product is rounded."""
    keys = iter(jax.random.split(jax.random.key(seed), 4))
    return _INPUTS[self.op](
      functools.partial(_random, exact, keys), self.shape, self.options
    )

  def abstract_inputs(self) -> tuple:
    return jax.eval_shape(self.inputs)

  def function(self, implementation: str | None) -> Callable:
    """What maps the inputs to the result on an implementation."""
    which = {'implementation': implementation}
    if self.op == 'feed_forward':
      return lambda s, up, down: fused.feed_forward(s, up, down, 'exact', implementation)
    options = dict(self.options)
    if self.op == 'matmul':
      options.pop('axis', None)  # the packed operand knows it
    module = op if hasattr(op, self.op) else fused
    return functools.partial(getattr(module, self.op), **options, **which)


def _word(value: Any) -> str:
  return value if isinstance(value, str) else getattr(value, '__name__', str(value))


def _random(exact: bool, keys: Any, *shape: int) -> jax.Array:
  if exact:
    x = jax.random.randint(next(keys), shape, -2, 3) / 4
  else:
    x = jax.random.normal(next(keys), shape)
  return x.astype(jnp.bfloat16)


def _compress(random, shape, options):
  return (random(shape['T'], shape['F']),)


def _matmul(random, shape, options):
  M, K, N = shape['M'], shape['K'], shape['N']
  axis = options.get('axis', 1)
  x = random(M, K) if axis == 1 else random(K, M)
  b = random(N, K) if options.get('transpose_b') else random(K, N)
  return op.compress(x, axis=axis, implementation='xla'), b


def _up_compress(random, shape, options):
  T, K, F = shape['T'], shape['K'], shape['F']
  return random(T, K), random(F, K) if options.get('transpose_w') else random(K, F)


def _z(random, T: int, F: int) -> TwoFour:
  return op.compress(random(T, F), activation='relu2', implementation='xla')


def _gated_backward(random, shape, options):
  T, N, F = shape['T'], shape['N'], shape['F']
  w = random(F, N) if options.get('transpose_w', True) else random(N, F)
  return random(T, N), w, _z(random, T, F)


def _weight_gradient(random, shape, options):
  T, F, N = shape['T'], shape['F'], shape['N']
  return _z(random, T, F), random(T, N)


def _feed_forward(random, shape, options):
  T, R, F, N = shape['T'], shape['R'], shape['F'], shape['N']
  return random(T, R), random(R, F), random(F, N)


_INPUTS = {
  'compress': _compress,
  'matmul': _matmul,
  'up_compress': _up_compress,
  'gated_backward': _gated_backward,
  'weight_gradient': _weight_gradient,
  'feed_forward': _feed_forward,
}


def _compress_cases(T: int, F: int) -> list[Case]:
  return [
    Case('compress', {'T': T, 'F': F}, {'axis': axis, 'rule': rule, 'activation': 'relu2'})
    for axis in (1, 0)
    for rule in ('top2', 'transposable')
  ]


def _layouts(M: int, K: int, N: int) -> list[Case]:
  return [
    Case('matmul', {'M': M, 'K': K, 'N': N}, {'axis': axis, 'transpose_b': transposed})
    for axis in (1, 0)
    for transposed in (False, True)
  ]


def small() -> list[Case]:
  """Whole tiles, and widths that do not divide by them."""
  cases = [*_compress_cases(128, 256), *_compress_cases(72, 132)]
  cases += [Case('compress', {'T': 128, 'F': 128}, {'axis': 1})]  # signed entries
  cases += [*_layouts(256, 256, 128), *_layouts(72, 132, 72)]
  cases += [Case('matmul', {'M': 128, 'K': 128, 'N': 256}, {'out_dtype': jnp.float32})]
  for T, K, F in ((128, 128, 256), (72, 40, 132)):
    for transposed in (False, True):
      options = {'transpose_w': transposed}
      cases += [Case('up_compress', {'T': T, 'K': K, 'F': F}, options)]
      cases += [Case('gated_backward', {'T': T, 'N': K, 'F': F}, options)]
    cases += [Case('weight_gradient', {'T': T, 'F': F, 'N': K})]
    cases += [Case('feed_forward', {'T': T, 'R': K, 'F': F, 'N': K})]
  # Too wide for the fused kernel: two kernels instead.
  cases += [Case('feed_forward', {'T': 72, 'R': 40, 'F': 132, 'N': 300})]
  return cases


def whole(F: int) -> int:
  """The features that a feed-forward of F gives its kernels: whole tiles."""
  return F + -F % TILE_K


def published() -> list[Case]:
  """Every operation of a feed-forward at the published sizes, low rank and full rank."""
  cases, T = [], TOKENS
  shapes = [(whole(F), R) for _, F, R in SIZES.values()]
  shapes += [(F, D) for D, F in FULL_RANK.values()]
  for F, K in shapes:
    cases += _compress_cases(T, F)
    cases += _layouts(T, F, K)
    cases += [Case('up_compress', {'T': T, 'K': K, 'F': F})]
    cases += [Case('gated_backward', {'T': T, 'N': K, 'F': F})]
    cases += [Case('weight_gradient', {'T': T, 'F': F, 'N': K})]
    cases += [Case('feed_forward', {'T': T, 'R': K, 'F': F, 'N': K})]
  D, F = FULL_RANK['1b']
  cases += [Case('matmul', {'M': T, 'K': F, 'N': D}, {'out_dtype': jnp.float32})]
  return list({case.name: case for case in cases}.values())
