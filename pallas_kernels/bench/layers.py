"""The whole feed-forward layer in its four forms, forward alone and with all gradients."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Var

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
ORDER = ('60m', '130m', '350m', '1b', '7b')


@dataclasses.dataclass(frozen=True)
class TimedLayer:
  """Attributes:
  training: with all gradients.
  transposable: our kernels with that backward pass, against XLA without 2:4. They take
    long to compile, and are timed only where they are asked for by name.
  """

  layer: Layer
  training: bool
  transposable: bool = False

  @property
  def name(self) -> str:
    passes = 'forward and backward' if self.training else 'forward'
    more = ', transposable' if self.transposable else ''
    return f'{self.layer.title}, {passes}, T{self.layer.tokens}{more}'

  @property
  def usual(self) -> bool:
    return self.layer.low_rank and self.layer.size != '7b' and not self.transposable

  def floors(self) -> dict[str, list[roofline.Op]]:
    """Of each peer that is timed."""
    methods = METHODS
    if self.transposable:
      methods = {DENSE_XLA: METHODS[DENSE_XLA], TRANSPOSABLE: ('transposable', 'fused')}
    return {
      peer: roofline.ops(self.layer, method, self.training)
      for peer, method in methods.items()
    }

  @property
  def flops(self) -> float:
    ops = roofline.ops(self.layer, METHODS[DENSE_XLA], self.training)
    return sum(op.dense_flops for op in ops)

  def inputs(self, exact: bool, seed: jax.Array | int) -> tuple:
    """(x, *weights) in bf16, and the gradient of the output first if `training`.

    Of exact ones, multiples of 1/4, all sums up to the pruning are exact.
    """
    (D, F, R), T = SIZES[self.layer.size], self.layer.tokens
    low_rank = [(D, R), (R, F), (F, R), (R, D)]
    weights = low_rank if self.layer.low_rank else [(D, F), (F, D)]
    shapes = [(T, D)] * (1 + self.training) + weights
    keys = jax.random.split(jax.random.key(seed), len(shapes))
    made = []
    for number, (key, shape) in enumerate(zip(keys, shapes)):
      if exact:
        value = jax.random.randint(key, shape, -2, 3) / 4
      else:
        value = jax.random.normal(key, shape)
        value = value / shape[0] ** 0.5 if number > self.training else value
      made.append(value.astype(jnp.bfloat16))
    return tuple(made)

  def functions(self) -> dict[str, Callable]:
    """Name -> function of `inputs`: the output, or with `training` that and all gradients.

    Those of `floors`, and the references of LIKE.
    """
    return {name: _function(self, core) for name, core in cores(self.training).items()}

  def saved(self, peer: str) -> dict[str, int]:
    """The bytes that a peer's inner part keeps from forward to backward pass."""
    if not self.training:
      return {}
    _, F, _ = SIZES[self.layer.size]
    T, K = self.layer.tokens, self.layer.inner
    shapes = [(T, K), (K, F), (F, K)]
    operands = [jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in shapes]
    return {'saved_bytes': saved_bytes(cores(True)[peer], *operands)}


def cores(training: bool) -> dict[str, Callable]:
  """Name -> the function of (s, up, down) that is F wide inside."""
  pruned = lambda *which: lambda s, up, down: feed_forward(s, up, down, *which)
  return {
    DENSE_XLA: lambda s, up, down: squared_relu(s @ up) @ down,
    PRUNED_XLA: pruned('exact', 'xla'),
    LIKE[TRANSPOSABLE]: pruned('transposable', 'xla'),
    UNPRUNED: train_unpruned if training else feed_forward_unpruned,
    OURS: pruned('exact', 'mosaic'),
    TRANSPOSABLE: pruned('transposable', 'mosaic'),
  }


def _function(layer: TimedLayer, core: Callable) -> Callable:
  def low_rank(x, a1, b1, a2, b2):
    return core(x @ a1, b1, a2) @ b2

  forward = low_rank if layer.layer.low_rank else core

  def both(g, *inputs):
    out, back = jax.vjp(forward, *inputs)
    return out, back(g)

  return both if layer.training else forward


def saved_bytes(function: Callable, *inputs: Any) -> int:
  """Of the arrays that its vjp holds, without the inputs, which are there anyway."""
  jaxpr = jax.make_jaxpr(lambda *x: jax.tree.leaves(jax.vjp(function, *x)[1]))(*inputs)
  inner = jaxpr.jaxpr
  kept = {x for x in inner.outvars if isinstance(x, Var)} - set(inner.invars)
  return sum(math.prod(x.aval.shape) * x.aval.dtype.itemsize for x in kept)


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
def all_layers(tokens: int) -> dict[str, TimedLayer]:
  """All by name; the usual ones first, the smallest first."""
  found = [
    TimedLayer(Layer(size, tokens, low_rank), training)
    for low_rank in (True, False)
    for size in ORDER
    for training in (False, True)
  ]
  found += [
    TimedLayer(x.layer, True, transposable=True) for x in found if x.usual and x.training
  ]
  return {x.name: x for x in sorted(found, key=lambda x: not x.usual)}
