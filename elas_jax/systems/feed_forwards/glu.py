"""down(act(gate(x)) * up(x)), gated linear units: with silu the SwiGLU (arXiv 2002.05202).

x (B, L, D), gate(x) and up(x) (B, L, F). SwiGLU is the feed-forward of LLaMA; without an
activation it is the bilinear one of the same paper.
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
class GLU:
  activation: Any = section(ACTIVATIONS, 'silu')  # of the gate

  def make(self, parts: Parts, name: str) -> nn.Module:
    return Module(self, parts, name=name)

  def maps(self, parts: Parts) -> dict[str, Map]:
    D, F = parts.width, parts.hidden
    return {'gate': Map(D, F, 'out'), 'up': Map(D, F, 'out'), 'down': Map(F, D, 'in')}

  def inner(self, parts: Parts) -> dict[str, Any]:
    return {'activation': self.activation}

  def zeros(self) -> bool:
    return about(self.activation, 'zeros', default=False)


class Module(nn.Module):
  kind: GLU
  parts: Parts

  @nn.compact
  def __call__(self, x_BxLxD: jax.Array) -> jax.Array:
    kind, parts, linear = self.kind.activation, self.parts, self.parts.linear
    first = dataclasses.replace(parts, opening=True)
    gate_BxLxF = linear.make(parts.hidden, first, name='gate')(x_BxLxD)
    up_BxLxF = linear.make(parts.hidden, first, name='up')(x_BxLxD)
    if hasattr(kind, 'gate'):
      y_BxLxF = kind.gate(gate_BxLxF, up_BxLxF)
    else:
      y_BxLxF = kind.make(parts, name='activation')(gate_BxLxF) * up_BxLxF
    return last_map(self, parts, y_BxLxF)


CASES = (GLU(), GLU(ACTIVATIONS['none']()))


def truth(kind: GLU, x: np.ndarray, p: dict, linear: Any) -> np.ndarray:
  activation, own = kind.activation, p.get('activation', {})
  y = room(activation).truth(activation, linear(x, p['gate']), own)
  return linear(y * linear(x, p['up']), p['down'])
