"""down(top_k(act(up(x)))): the Top-k Transformer of the lazy neurons (arXiv 2210.06313).

x (B, L, D), up(x) (B, L, F). Of each token's F activations the k largest stay and the rest
is zero; of equal ones the lower index comes first, so that exactly k are taken. The
gradient passes through those that stay. With the ReLU a token of which fewer than k are
above 0 loses nothing. What is sown is what enters the last map, after top_k.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from elas_jax.common.errors import UserError
from elas_jax.common.fields import at_least
from elas_jax.systems.activations import ACTIVATIONS
from elas_jax.systems.feed_forwards.common import last_map
from elas_jax.systems.feed_forwards.mlp import MLP
from elas_jax.systems.kinds import Map, Parts, room, section


@dataclasses.dataclass(frozen=True)
class TopK:
  k: int = 128  # entries kept of a token's F; ours, 4 % of the F = 3072 of ViT-B/16
  activation: Any = section(ACTIVATIONS, 'relu')  # between the two maps

  def check(self, where: str, config: Any) -> None:
    at_least(1, where, self, 'k')
    name, width = config.model.hidden
    if self.k > width:
      raise UserError(f'{where}.k={self.k}: must be at most {name}={width}')

  def make(self, parts: Parts, name: str) -> nn.Module:
    return Module(self, parts, name=name)

  def maps(self, parts: Parts) -> dict[str, Map]:
    return MLP().maps(parts)

  def inner(self, parts: Parts) -> dict[str, Any]:
    return {'activation': self.activation}

  def zeros(self) -> bool:
    return True

  def probed(self) -> bool:
    return MLP(self.activation).probed()


class Module(nn.Module):
  kind: TopK
  parts: Parts

  @nn.compact
  def __call__(self, x_BxLxD: jax.Array) -> jax.Array:
    kind, parts, linear = self.kind, self.parts, self.parts.linear
    first = dataclasses.replace(parts, opening=True)
    h_BxLxF = linear.make(parts.hidden, first, name='up')(x_BxLxD)
    y_BxLxF = top_k(kind.activation.make(parts, name='activation')(h_BxLxF), kind.k)
    return last_map(self, parts, y_BxLxF)


def top_k(y: jax.Array, k: int) -> jax.Array:
  """Y (..., F) with all but the k largest of the last axis zero."""
  y_TxF = y.reshape(-1, y.shape[-1])
  _, places_Txk = jax.lax.top_k(jax.lax.stop_gradient(y_TxF), k)  # in their order
  rows_Tx1 = jnp.arange(len(y_TxF))[:, None]
  kept_TxF = jnp.zeros(y_TxF.shape, bool).at[rows_Tx1, places_Txk].set(True)
  return jnp.where(kept_TxF, y_TxF, 0).reshape(y.shape)


CASES = (TopK(k=4), TopK(k=5, activation=ACTIVATIONS['gelu']()))


def truth(kind: TopK, x: np.ndarray, p: dict, linear: Any) -> np.ndarray:
  activation, own = kind.activation, p.get('activation', {})
  y = room(activation).truth(activation, linear(x, p['up']), own)
  places = np.argsort(-y, axis=-1, kind='stable')[..., : kind.k]
  kept = np.zeros_like(y)
  np.put_along_axis(kept, places, 1, axis=-1)
  return linear(y * kept, p['down'])
