"""down(act(up(x))), ungated; by default with the squared ReLU of Primer (arXiv 2109.08668).

x (B, L, D), up(x) (B, L, F). With the squared ReLU it is the feed-forward of PLM, and of
ELAS before pruning.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from elas_jax.systems.activations import ACTIVATIONS
from elas_jax.systems.feed_forwards.common import last_map
from elas_jax.systems.kinds import Map, Parts, about, room, section


@dataclasses.dataclass(frozen=True)
class MLP:
  activation: Any = section(ACTIVATIONS, 'relu2')  # between the two maps

  def make(self, parts: Parts, name: str) -> nn.Module:
    return Module(self, parts, name=name)

  def maps(self, parts: Parts) -> dict[str, Map]:
    D, F = parts.width, parts.hidden
    return {'up': Map(D, F, 'out'), 'down': Map(F, D, 'in')}

  def inner(self, parts: Parts) -> dict[str, Any]:
    return {'activation': self.activation}

  def zeros(self) -> bool:
    return about(self.activation, 'zeros', default=False)

  def probed(self) -> bool:
    return isinstance(self.activation, (ACTIVATIONS['relu'], ACTIVATIONS['relu2']))


class Module(nn.Module):
  kind: MLP
  parts: Parts

  @nn.compact
  def __call__(self, x_BxLxD: jax.Array) -> jax.Array:
    kind, parts, linear = self.kind.activation, self.parts, self.parts.linear
    first = dataclasses.replace(parts, opening=True)
    h_BxLxF = linear.make(parts.hidden, first, name='up')(x_BxLxD)
    y_BxLxF = kind.make(parts, name='activation')(h_BxLxF)
    return last_map(self, parts, y_BxLxF)


CASES = (MLP(), MLP(ACTIVATIONS['gelu']()))


def truth(kind: MLP, x: np.ndarray, p: dict, linear: Any) -> np.ndarray:
  activation, own = kind.activation, p.get('activation', {})
  y = room(activation).truth(activation, linear(x, p['up']), own)
  return linear(y, p['down'])
