"""The layers of a transformer, of a decoder as of a vision transformer.

  x + attention(norm(x));  x + feed_forward(norm(x))

Parameters of the N layers are stacked on a leading axis and one layer is compiled. Layers
may differ by depth in a short cycle: then a cycle is what is stacked, N / cycle times, and
what is compiled.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from elas_jax.ops.remat import REMAT_POLICIES
from elas_jax.systems.kinds import Map, Parts, about
from elas_jax.systems.sown import EVERY_NAME, sow

# A kind, or of what belongs to none the axes themselves; and the map whose they are.
Owners = dict[str, tuple[Any, Map | None]]


@dataclasses.dataclass(frozen=True)
class Layer:
  """What one layer of the cycle is made of: kinds of MIXERS and FEED_FORWARDS."""

  attention: Any
  feed_forward: Any


@dataclasses.dataclass(frozen=True)
class Stack:
  """N layers.

  Attributes:
    cycle: the layers that follow one another, again and again.
    layers: N, a multiple of the cycle's length.
    parts: of the network.
    of_attention: the parts of attention, where those are others.
    remat: what the backward pass keeps of a layer, a name of REMAT_POLICIES, or 'none'.
    unroll: layers that the scan unrolls.
  """

  cycle: tuple[Layer, ...]
  layers: int
  parts: Parts
  of_attention: Parts | None = None
  remat: str = 'none'
  unroll: int = 1

  @property
  def attention_parts(self) -> Parts:
    return self.of_attention or self.parts

  @property
  def repeats(self) -> int:
    """How often the cycle comes: the length of the stacked axis."""
    return self.layers // len(self.cycle)

  def make(self, train: bool, name: str, apart: bool = False) -> nn.Module:
    """(x (B, L, D), states or None, angles, start, segments) -> (x, states).

    With `apart` the layers' parameters and states are not stacked but as
    `layers_apart` has them, and every layer is compiled.
    """
    if apart:
      return Apart(self, train, name=name)
    one = len(self.cycle) == 1
    module = nn.scan(
      self.block() if one else Cycle,
      length=self.repeats,
      variable_axes={'params': 0, 'buffers': 0, EVERY_NAME: 0},
      split_rngs={'params': True, 'noise': True},
      in_axes=(0, nn.broadcast, nn.broadcast, nn.broadcast),
      unroll=min(max(self.unroll // len(self.cycle), 1), self.repeats),
    )
    return (
      module(self, self.cycle[0], train, name=name)
      if one
      else module(self, train, name=name)
    )

  def block(self) -> type[nn.Module]:
    """The module of a layer, which keeps for the backward pass what `remat` says."""
    if self.remat == 'none':
      return Block
    return nn.remat(Block, policy=REMAT_POLICIES[self.remat], prevent_cse=False)

  def paths(self) -> list[tuple[str, Layer]]:
    """Where each layer of the cycle lies below the module, and the layer."""
    if len(self.cycle) == 1:
      return [('', self.cycle[0])]
    return [(f'{_name(number)}/', layer) for number, layer in enumerate(self.cycle)]

  def angles(self, positions: jax.Array) -> tuple[Any, ...]:
    """What the mixers of the cycle turn their queries and keys by."""
    parts = self.attention_parts
    return tuple(
      parts.position.angles(positions, layer.attention.head_size(parts))
      for layer in self.cycle
    )

  def empty_state(self, batch: int, length: int) -> Any:
    """The mixers' states for `length` positions, stacked as the parameters are."""
    states = {}
    for path, layer in self.paths():
      one = layer.attention.empty_state(self.attention_parts, batch, length)
      stacked = lambda x: jnp.broadcast_to(x, (self.repeats, *x.shape))
      states[path.rstrip('/')] = jax.tree.map(stacked, one)
    return states if len(self.cycle) > 1 else states['']

  def owners(self) -> Owners:
    """Path below the module -> whose the parameters there are."""
    found: Owners = {}
    for path, layer in self.paths():
      for name in ('attention', 'feed_forward'):
        parts = self.attention_parts if name == 'attention' else self.parts
        kind, where = getattr(layer, name), f'{path}{name}'
        found[f'{where}_norm'] = self.parts.norm, None
        found[where] = kind, None
        for inner, owner in about(kind, 'inner', parts, default={}).items():
          found[f'{where}/{inner}'] = owner, None
        for inner, linear_map in kind.maps(parts).items():
          found[f'{where}/{inner}'] = parts.linear, linear_map
    return found

  def maps(self) -> dict[str, Map]:
    """The linear maps of one cycle, by path."""
    return {path: one for path, (_, one) in self.owners().items() if one is not None}


class Block(nn.Module):
  """One layer, in the form nn.scan wants: (carry, scanned) -> the same."""

  stack: Stack
  layer: Layer
  train: bool

  @nn.compact
  def __call__(
    self, x_BxLxD: jax.Array, state: Any, angles: Any, start: Any, segments: Any
  ):
    parts = dataclasses.replace(self.stack.parts, train=self.train)
    of_attention = dataclasses.replace(self.stack.attention_parts, train=self.train)
    norm = lambda name: parts.norm.make(parts, name=name, train=self.train)
    attention = self.layer.attention.make(of_attention, name='attention')
    feed_forward = self.layer.feed_forward.make(parts, name='feed_forward')
    given = (norm('attention_norm')(x_BxLxD), angles[0], state, start)
    # Not every kind takes segments.
    y_BxLxD, state = attention(*given, *(() if segments is None else (segments,)))
    x_BxLxD = x_BxLxD + y_BxLxD
    x_BxLxD = x_BxLxD + feed_forward(norm('feed_forward_norm')(x_BxLxD))
    sow(self, 'residual', lambda: x_BxLxD.reshape(-1, parts.width))
    return x_BxLxD, state


class Cycle(nn.Module):
  """Layers that differ, one after the other, in the same form."""

  stack: Stack
  train: bool

  @nn.compact
  def __call__(
    self, x_BxLxD: jax.Array, states: Any, angles: Any, start: Any, segments: Any
  ):
    after = {}
    for number, layer in enumerate(self.stack.cycle):
      name = _name(number)
      block = self.stack.block()(self.stack, layer, self.train, name=name)
      state, own = None if states is None else states[name], angles[number : number + 1]
      x_BxLxD, after[name] = block(x_BxLxD, state, own, start, segments)
    return x_BxLxD, None if states is None else after


class Apart(nn.Module):
  """All layers, one after the other, each with arrays of its own."""

  stack: Stack
  train: bool

  @nn.compact
  def __call__(
    self, x_BxLxD: jax.Array, states: Any, angles: Any, start: Any, segments: Any
  ):
    after, cycle = {}, self.stack.cycle
    for number in range(self.stack.layers):
      at, name = number % len(cycle), str(number)
      block = self.stack.block()(self.stack, cycle[at], self.train, name=name)
      state, own = None if states is None else states[name], angles[at : at + 1]
      x_BxLxD, after[name] = block(x_BxLxD, state, own, start, segments)
    return x_BxLxD, None if states is None else after


def layers_apart(stack: Stack, stacked: Any) -> dict[str, Any]:
  """Parameters, buffers or states of stacked layers, by the number of the layer."""
  found, cycle = {}, len(stack.cycle)
  for number in range(stack.layers):
    of = stacked if cycle == 1 else stacked[_name(number % cycle)]
    found[str(number)] = jax.tree.map(lambda x, n=number // cycle: x[n], of)
  return found


def _name(number: int) -> str:
  return f'layer_{number}'
