"""What aot.py compiles: every published case, then other configs, controls and ceilings."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp

from pallas_kernels.bench import ceilings
from pallas_kernels.two_four import cases, mosaic
from pallas_kernels.two_four.mosaic_gpu import (
  compress,
  dense,
  feed_forward,
  matmul,
  weight_gradient,
)


@dataclasses.dataclass(frozen=True)
class Program:
  """What is compiled as one.

  Attributes:
    function: of the operands.
    operands: () -> them, abstract.
    products: of its kernels, in order, how many sparse and how many dense instructions.
  """

  name: str
  function: Callable
  operands: Callable[[], tuple]
  products: tuple[tuple[int, int], ...]


def programs() -> list[Program]:
  """Every published case with its config, other configs and controls, and ceilings."""
  return [*map(_published, cases.published()), *_alternatives(), *_ceilings()]


def _published(case: cases.Case) -> Program:
  s = case.shape
  if case.op == 'feed_forward':
    two_kernels = (0, _dense_products(s['F'], s['R'])), (4, 0)
    is_fused = max(s['R'], s['N']) <= feed_forward.MAX_RANK
    products = (_feed_forward_products(s['R']),) if is_fused else two_kernels
  else:
    sparse = 4 if case.op == 'matmul' else 0
    counts = {'up_compress': s.get('K'), 'gated_backward': s.get('N')}
    dense = _dense_products(s['F'], counts[case.op]) if case.op in counts else 0
    products = ((sparse, 4 if case.op == 'weight_gradient' else dense),)
  return Program(case.name, case.function('mosaic'), case.abstract_inputs, products)


def _dense_products(F: int, K: int, config: dense.Config | None = None) -> int:
  """Four of 16 a step; all where weights are resident.

  Else the compiler unrolls up to four steps, and peels one off more.
  """
  steps = -(-K // dense.K_STEP)
  if (config or mosaic.dense_config(F, K)).resident:
    return 4 * steps
  return 4 * steps if steps <= 4 else 8


def _feed_forward_products(R: int, prune: bool = True) -> tuple[int, int]:
  return (4, R // 16) if prune else (0, R // 16 + 128 // 16)


def _alternatives() -> Iterator[Program]:
  T, D, F = 16384, 2048, 8192
  for config, axis, b_t in itertools.product(
    (
      matmul.Config(cluster=2),
      matmul.Config(tile_n=128, stages=3),
      matmul.Config(warpgroup_rows=128, tile_n=128),
      matmul.Config(warpgroups=3, tile_n=192),
    ),
    (1, 0),
    (False, True),
  ):
    M = T - T % (config.tile_m * config.cluster)
    values, metadata = _packed(M, F)
    shapes = values if axis == 1 else values[::-1], metadata, (D, F) if b_t else (F, D)
    products = (config.warpgroup_rows // 64 * 4, 0)
    yield _program(matmul.matmul, shapes, products, axis=axis, b_t=b_t, config=config)

  for config, w_t in itertools.product(
    (dense.Config(), dense.Config(cluster=2), dense.Config(tile_n=128, stages=4)),
    (False, True),
  ):
    shapes, options = ((T, D), (F, D) if w_t else (D, F)), {'w_t': w_t, 'config': config}
    products = 0, _dense_products(F, D, config)
    for prune in (True, False):
      yield _program(dense.up_compress, shapes, products, prune=prune, **options)
    yield _program(dense.gated_backward, (*shapes, *_packed(T, F)), products, **options)

  for (K, config), w_t in itertools.product(
    ((256, mosaic.RESIDENT[0]), (512, mosaic.RESIDENT[2]), (128, mosaic.RESIDENT[1])),
    (False, True),
  ):
    shapes, options = ((T, K), (F, K) if w_t else (K, F)), {'w_t': w_t, 'config': config}
    products = 0, _dense_products(F, K, config)
    yield _program(dense.up_compress, shapes, products, **options)
    yield _program(dense.gated_backward, (*shapes, *_packed(T, F)), products, **options)
  config = dataclasses.replace(mosaic.RESIDENT[0], buffers=1)
  shapes, products = ((T, 256), (256, F)), (0, _dense_products(F, 256, config))
  yield _program(dense.up_compress, shapes, products, prune=False, config=config)

  for (R, stages), (prune, keep) in itertools.product(
    ((128, 1), (128, 2), (256, 1)), ((True, False), (True, True), (False, False))
  ):
    shapes, config = ((T, R), (R, 4096), (4096, R)), feed_forward.Config(stages=stages)
    yield _program(
      feed_forward.feed_forward,
      shapes,
      _feed_forward_products(R, prune),
      prune=prune,
      keep=keep,
      config=config,
    )

  for tile_n, splits in itertools.product((128, 256), (2, 4)):
    config, shapes = (
      weight_gradient.Config(tile_n, splits=splits),
      (*_packed(T, D), (T, 256)),
    )
    yield _program(weight_gradient.weight_gradient, shapes, (0, 4), config=config)

  for along, rule, activation in itertools.product(
    compress.AXES, ('top2', 'transposable'), (None, 'relu2')
  ):
    options = {'along': along, 'rule': rule, 'activation': activation}
    if activation is None or along == 'both':
      yield _program(compress.compress, ((T, F),), (0, 0), **options)


def _ceilings() -> Iterator[Program]:
  """Loops over all stages; the compiler makes one of two rounds of the dense kernel's."""
  counts = {ceilings.DENSE: (0, 24), ceilings.COPIES: (0, 0), ceilings.MULTICAST: (0, 0)}
  for name, ceiling in ceilings.ceilings().items():
    inputs = functools.partial(jax.eval_shape, lambda of=ceiling: of.inputs(False))
    yield Program(f'ceiling {name}', ceiling.function, inputs, (counts.get(name, (8, 0)),))


def _packed(T: int, F: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
  return (T, F // 2), (F // 128, T // 64, 256)


def _program(function: Callable, shapes, products: tuple[int, int], **options) -> Program:
  """Of one kernel; metadata has three axes."""
  words = [function.__name__, *('x'.join(map(str, shape)) for shape in shapes)]
  words += [f'{name}={value}' for name, value in options.items()]
  return Program(
    '-'.join(words).replace(' ', ''),
    functools.partial(function, **options),
    lambda: tuple(
      jax.ShapeDtypeStruct(shape, jnp.uint32 if len(shape) == 3 else jnp.bfloat16)
      for shape in shapes
    ),
    (products,),
  )
