"""The whole feed-forward layer in its four forms, forward alone and with all gradients."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from pallas_kernels import roofline
from pallas_kernels.bench.peers import (
  DENSE_XLA,
  OURS,
  PRUNED_XLA,
  UNPRUNED,
  feed_forward_unpruned,
  gated_backward_unpruned,
  squared_relu,
  up_unpruned,
)
from pallas_kernels.roofline import SIZES, Layer
from pallas_kernels.two_four import feed_forward
from pallas_kernels.two_four.dispatch import padded
from pallas_kernels.two_four.packed import TILE_K

# The method of roofline.py whose floor each has.
METHODS = {
  DENSE_XLA: ('dense', 'epilogues'),
  PRUNED_XLA: ('exact', 'separate'),
  UNPRUNED: roofline.CONTROL,
  OURS: ('exact', 'fused'),
}
TRANSPOSABLE = 'ours, transposable'  # differs on the way back only
LIKE = {  # what each must agree with
  UNPRUNED: DENSE_XLA,
  OURS: PRUNED_XLA,
  TRANSPOSABLE: 'XLA 2:4, transposable',
}


def layer_name(layer: Layer, training: bool) -> str:
  passes = 'forward and backward' if training else 'forward'
  return f'{layer.title}, {passes}, T{layer.tokens}'


def floors(layer: Layer, training: bool) -> dict[str, list[roofline.Op]]:
  """Of each peer that is timed."""
  methods = METHODS | ({TRANSPOSABLE: ('transposable', 'fused')} if training else {})
  return {peer: roofline.ops(layer, method, training) for peer, method in methods.items()}


def flops(layer: Layer, training: bool) -> float:
  ops = roofline.ops(layer, METHODS[DENSE_XLA], training)
  return sum(op.dense_flops for op in ops)


def inputs(layer: Layer, training: bool, exact: bool, seed: jax.Array | int) -> tuple:
  """(x, *weights) in bf16, and the gradient of the output first if `training`.

  Of exact ones, multiples of 1/4, all sums up to the pruning are exact.
  """
  (D, F, R), T = SIZES[layer.size], layer.tokens
  weights = [(D, R), (R, F), (F, R), (R, D)] if layer.low_rank else [(D, F), (F, D)]
  shapes = [(T, D)] * (1 + training) + weights
  keys = jax.random.split(jax.random.key(seed), len(shapes))
  made = []
  for number, (key, shape) in enumerate(zip(keys, shapes)):
    if exact:
      value = jax.random.randint(key, shape, -2, 3) / 4
    else:
      value = jax.random.normal(key, shape)
      value = value / shape[0] ** 0.5 if number > training else value
    made.append(value.astype(jnp.bfloat16))
  return tuple(made)


def functions(layer: Layer, training: bool) -> dict[str, Callable]:
  """Name -> function of `inputs`: the output, or with `training` that and all gradients.

  Those of `floors`, and the references of LIKE.
  """
  pruned = lambda *which: lambda s, up, down: feed_forward(s, up, down, *which)
  cores = {
    DENSE_XLA: lambda s, up, down: squared_relu(s @ up) @ down,
    PRUNED_XLA: pruned('exact', 'xla'),
    LIKE[TRANSPOSABLE]: pruned('transposable', 'xla'),
    UNPRUNED: train_unpruned if training else feed_forward_unpruned,
    OURS: pruned('exact', 'mosaic'),
    TRANSPOSABLE: pruned('transposable', 'mosaic'),
  }
  return {name: _function(layer, training, core) for name, core in cores.items()}


def _function(layer: Layer, training: bool, core: Callable) -> Callable:
  def low_rank(x, a1, b1, a2, b2):
    return core(x @ a1, b1, a2) @ b2

  forward = low_rank if layer.low_rank else core

  def both(g, *inputs):
    out, back = jax.vjp(forward, *inputs)
    return out, back(g)

  return both if training else forward


def train_unpruned(s: jax.Array, up: jax.Array, down: jax.Array) -> jax.Array:
  """By our kernels without pruning, the gradient of the square in an epilogue as well.

  The other products are plain and dense, and XLA's. Saved is y, as in the roofline's
  control. Features are padded once, in the weights, as those of `feed_forward` are.
  """
  return _train_unpruned(s, padded(up, (1, TILE_K)), padded(down, (TILE_K, 1)))


@jax.custom_vjp
def _train_unpruned(s, up, down):
  return jnp.matmul(up_unpruned(s, up), down)


def _forward(s, up, down):
  y = up_unpruned(s, up)
  return jnp.matmul(y, down), (s, up, down, y)


def _backward(saved, g):
  s, up, down, y = saved
  dh = gated_backward_unpruned(g, down, y)
  return jnp.matmul(dh, up.T), jnp.matmul(s.T, dh), jnp.matmul(y.T, g)


_train_unpruned.defvjp(_forward, _backward)


@functools.cache
def all_layers(tokens: int) -> dict[str, tuple[Layer, bool]]:
  """All by name: the layer, and whether it is trained; low rank first."""
  found = [
    (Layer(size, tokens, low_rank), training)
    for low_rank in (True, False)
    for size in SIZES
    for training in (False, True)
  ]
  return {layer_name(*pair): pair for pair in found}
