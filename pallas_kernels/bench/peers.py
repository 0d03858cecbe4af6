"""What each case is timed against, and the floor of each: `peers(case)`.

A peer maps the case's inputs, as its `prepare` leaves them, to a result that is compared
with that of a reference in XLA. Floors are those of roofline.py: each input read once, each
output written once, products at the dense rate, 2:4 products at twice that rate.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from pallas_kernels.roofline import DENSE, PACKED, VALUES, Op
from pallas_kernels.two_four import compress_both, expand
from pallas_kernels.two_four.cases import Case, published
from pallas_kernels.two_four.dispatch import is_emulated, padded, tuned_config

OURS, UNPRUNED, BOTH = 'ours', 'ours, unpruned', 'ours, both axes'
PRUNED_XLA, DENSE_XLA, JAX_HOPPER = 'XLA 2:4', 'XLA dense', 'JAX Hopper dense'
# Their pruning sees a product, whose rounding depends on the order of its sum: they are
# compared on inputs that make every sum exact.
EXACT_INPUTS = ('up_compress', 'feed_forward')


@dataclasses.dataclass(frozen=True)
class Peer:
  """Attributes:
  function: of what `prepare` returns.
  floor: the operations of which the floor is made.
  like: the reference among 'pruned', 'dense' and 'both' that it must agree with; '' for
    one that is not compared.
  prepare: the case's inputs -> those of the function; not timed.
  """

  name: str
  function: Callable
  floor: list[Op]
  like: str = 'pruned'
  prepare: Callable = lambda *inputs: inputs


def cases(tokens: int) -> dict[str, Case]:
  """The published cases by name, at so many tokens."""
  changed = [
    dataclasses.replace(
      case, shape={k: tokens if k in ('T', 'M') else v for k, v in case.shape.items()}
    )
    for case in published()
  ]
  return {case.name: case for case in changed}


def peers(case: Case) -> list[Peer]:
  make = {
    'compress': _compress,
    'matmul': _matmul,
    'up_compress': _up_compress,
    'gated_backward': _gated_backward,
    'weight_gradient': _weight_gradient,
    'feed_forward': _feed_forward,
  }[case.op]
  return make(case, **case.shape)


def references(case: Case) -> dict[str, Callable]:
  """Functions of the case's inputs that the peers must agree with."""
  found = {'pruned': case.function('xla')}
  if case.op == 'compress':
    found['both'] = _both(case, 'xla')
  for peer in peers(case):
    if peer.name == DENSE_XLA and not peer.like:
      found['dense'] = lambda *inputs, peer=peer: peer.function(*peer.prepare(*inputs))
  return found


def flops(case: Case) -> float:
  """Of the dense operation: two for each multiplication of its products."""
  if case.op == 'compress':
    return 0.0
  if case.op == 'feed_forward':
    T, R, F, N = (case.shape[name] for name in 'TRFN')
    return 2.0 * T * F * (R + N)
  a, b, c = case.shape.values()
  return 2.0 * a * b * c


@jax.custom_vjp
def squared_relu(h: jax.Array) -> jax.Array:
  """relu(h)^2. Saved for the way back: h; of the formula, JAX would keep more."""
  return jnp.square(jnp.maximum(h, 0))


squared_relu.defvjp(
  lambda h: (squared_relu(h), h), lambda h, g: (2 * jnp.maximum(h, 0) * g,)
)


def expanded(packed: Any) -> jax.Array:
  return jax.jit(lambda packed: expand(packed, implementation='xla'))(packed)


def _compress(case: Case, T: int, F: int) -> list[Peer]:
  floor = [Op('', (DENSE + PACKED) * T * F)]
  both = [Op('', (DENSE + 2 * PACKED) * T * F)]
  passing = [Op('', 2 * DENSE * T * F)]
  return [
    Peer(PRUNED_XLA, case.function('xla'), floor, like=''),
    Peer('XLA relu2 alone', squared_relu, passing, like=''),
    Peer(OURS, case.function('mosaic'), floor),
    *([Peer(BOTH, _both(case, 'mosaic'), both, 'both')] if case.options['axis'] else []),
  ]


def _both(case: Case, implementation: str) -> Callable:
  options = {k: v for k, v in case.options.items() if k != 'axis'}
  return lambda y: compress_both(y, **options, implementation=implementation)


def _matmul(case: Case, M: int, K: int, N: int) -> list[Peer]:
  def prepare(x, b):
    return expanded(x), b

  def dense(x, b):
    x = x if case.options.get('axis', 1) == 1 else x.T
    b = b.T if case.options.get('transpose_b') else b
    return jnp.matmul(x, b, preferred_element_type=out_dtype)

  out_dtype = case.options.get('out_dtype', jnp.bfloat16)
  rest = 2.0 * K * N + jnp.dtype(out_dtype).itemsize * M * N
  pruned = [Op('', PACKED * M * K + rest, sparse_flops=flops(case))]
  plain = [Op('', DENSE * M * K + rest, flops(case))]
  result = [
    Peer(DENSE_XLA, dense, plain, 'pruned', prepare),
    Peer(PRUNED_XLA, case.function('xla'), pruned, like=''),
    Peer(OURS, case.function('mosaic'), pruned),
  ]
  if straight(case):
    for name, function in hopper_matmuls(M, K, N).items():
      result.append(Peer(f'{JAX_HOPPER}, {name}', function, plain, 'pruned', prepare))
  return result


def straight(case: Case) -> bool:
  """Whether it is the product of two matrices as they are: foreign kernels do only that."""
  options = case.options
  return case.op == 'matmul' and (
    options.get('axis', 1) == 1
    and not options.get('transpose_b')
    and options.get('out_dtype', jnp.bfloat16) == jnp.bfloat16
  )


def hopper_matmuls(M: int, K: int, N: int) -> dict[str, Callable]:
  """JAX's own dense kernel with each of a few tiles that divide the shape."""
  try:
    from jax.experimental.pallas.ops.gpu import hopper_matmul_mgpu as hopper
  except ImportError:  # it needs absl, which nothing here does
    return {}
  dimensions = hopper.MatmulDimension
  found = {}
  for tile_m, tile_n, split in ((128, 128, 'M'), (128, 128, 'N'), (128, 64, 'M')):
    wide = {'M': (2 * tile_m, tile_n), 'N': (tile_m, 2 * tile_n)}[split]
    if M % wide[0] or N % wide[1] or K % 64:
      continue
    config = hopper.TuningConfig(
      tile_m=tile_m,
      tile_n=tile_n,
      tile_k=64,
      max_concurrent_steps=4,
      grid_minor_dim=dimensions.N,
      grid_tile_width=8,
      wg_dimension=dimensions[split],
    )
    found[f'{wide[0]}x{wide[1]}'] = lambda a, b, c=config: hopper.matmul(a, b, None, c)
  return found


def _up_compress(case: Case, T: int, K: int, F: int) -> list[Peer]:
  w_t = case.options.get('transpose_w', False)
  weight = lambda w: w.T if w_t else w
  product = lambda wide: [Op('', wide * T * F + DENSE * (T * K + K * F), flops(case))]
  return [
    Peer(
      DENSE_XLA,
      lambda x, w: squared_relu(jnp.matmul(x, weight(w))),
      product(DENSE),
      like='',
    ),
    Peer('XLA product alone', lambda x, w: x @ weight(w), product(DENSE), like=''),
    Peer(PRUNED_XLA, case.function('xla'), product(PACKED), like=''),
    Peer(UNPRUNED, lambda x, w: up_unpruned(x, weight(w)), product(DENSE), 'dense'),
    Peer(OURS, case.function('mosaic'), product(PACKED)),
  ]


def _gated_backward(case: Case, T: int, N: int, F: int) -> list[Peer]:
  weight = lambda w: w.T if case.options.get('transpose_w', True) else w
  product = lambda wide: [Op('', wide * T * F + DENSE * (T * N + N * F), flops(case))]

  def prepare(g, w, z):
    return g, w, jnp.sqrt(expanded(z))

  pruned = product(PACKED + VALUES)
  return [
    Peer(
      DENSE_XLA,
      lambda g, w, h: 2 * h * jnp.matmul(g, weight(w)),
      product(2 * DENSE),
      '',
      prepare,
    ),
    Peer('XLA product alone', lambda g, w, _: g @ weight(w), product(DENSE), like=''),
    Peer(PRUNED_XLA, case.function('xla'), pruned, like=''),
    Peer(OURS, case.function('mosaic'), pruned),
  ]


def _weight_gradient(case: Case, T: int, F: int, N: int) -> list[Peer]:
  dense = lambda z, g: jnp.matmul(z.T, g, preferred_element_type=jnp.float32)
  product = lambda wide: [Op('', wide * T * F + DENSE * T * N + 4.0 * F * N, flops(case))]
  prepare = lambda z, g: (expanded(z), g)
  return [
    Peer(DENSE_XLA, dense, product(DENSE), 'pruned', prepare),
    Peer(PRUNED_XLA, case.function('xla'), product(PACKED), like=''),
    Peer(OURS, case.function('mosaic'), product(PACKED)),
  ]


def _feed_forward(case: Case, T: int, R: int, F: int, N: int) -> list[Peer]:
  from pallas_kernels.two_four import mosaic

  ends = DENSE * (T * R + R * F + F * N + T * N)
  half = 2.0 * T * F
  if max(R, N) <= mosaic.MAX_RANK:
    pruned = [Op('', ends, half * R, half * N)]
    plain = [Op('', ends, half * (R + N))]
  else:  # two kernels, and what is F wide goes through memory
    two = lambda wide, dense, sparse: [
      Op('', wide * T * F + DENSE * (T * R + R * F), half * R),
      Op('', wide * T * F + DENSE * (T * N + N * F), dense, sparse),
    ]
    pruned, plain = two(PACKED, 0.0, half * N), two(DENSE, half * N, 0.0)
  return [
    Peer(DENSE_XLA, lambda s, up, down: squared_relu(s @ up) @ down, plain, like=''),
    Peer(PRUNED_XLA, case.function('xla'), pruned, like=''),
    Peer(UNPRUNED, feed_forward_unpruned, plain, 'dense'),
    Peer(OURS, case.function('mosaic'), pruned),
  ]


def up_unpruned(x: jax.Array, w: jax.Array) -> jax.Array:
  """The kernel up_compress without its pruning: relu(x w)^2."""
  from pallas_kernels.two_four import mosaic
  from pallas_kernels.two_four.mosaic_gpu import dense

  (T, K), F = x.shape, w.shape[1]
  shape = {'T': T, 'K': K, 'F': F}
  config = tuned_config('up_compress', shape, mosaic.dense_config(F, K))
  config = dataclasses.replace(config, buffers=1)  # its tiles are twice as large
  x, w = padded(x, (8, dense.K_STEP)), padded(w, (dense.K_STEP, mosaic.FEATURES))
  y = dense.up_compress(x, w, prune=False, config=config, emulate=is_emulated())
  return y[:T, :F]


def gated_backward_unpruned(g: jax.Array, w: jax.Array, z: jax.Array) -> jax.Array:
  """The kernel gated_backward without pruning: 2 sqrt(z) (g w^T), with w (F, N)."""
  from pallas_kernels.two_four import mosaic
  from pallas_kernels.two_four.mosaic_gpu import dense

  (T, F), K = z.shape, g.shape[1]
  shape = {'T': T, 'K': K, 'F': F}
  config = tuned_config('gated_backward', shape, mosaic.dense_config(F, K))
  config = dataclasses.replace(config, buffers=1)  # its tiles are twice as large
  g, z = padded(g, (8, dense.K_STEP)), padded(z, (8, mosaic.FEATURES))
  w = padded(w, (mosaic.FEATURES, dense.K_STEP))
  dh = dense.gated_backward(g, w, z, None, config=config, emulate=is_emulated())
  return dh[:T, :F]


def feed_forward_unpruned(s: jax.Array, up: jax.Array, down: jax.Array) -> jax.Array:
  """The kernel feed_forward without its pruning; beyond its rank, two products."""
  from pallas_kernels.two_four import mosaic
  from pallas_kernels.two_four.mosaic_gpu import feed_forward as fused

  (T, R), (F, N) = s.shape, down.shape
  if max(R, N) > mosaic.MAX_RANK:
    return jnp.matmul(up_unpruned(s, up), down)
  shape = {'T': T, 'R': R, 'F': F, 'N': N}
  config = tuned_config('feed_forward', shape, mosaic.feed_forward_config(R, N))
  s, up, down = padded(s, (8, 64)), padded(up, (64, 128)), padded(down, (128, 64))
  out = fused.feed_forward(s, up, down, prune=False, config=config, emulate=is_emulated())
  return out[:T, :N]
