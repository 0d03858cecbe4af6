"""Attention of H heads in groups that share J keys and values (arXiv 2305.13245).

  q = rotate(query(x)),  k = rotate(key(x)),  v = value(x),  y = softmax(q k^T / sqrt(K)) v

then output(y); with a causal mask in a decoder. x (B, L, D), q (B, L, H, K), k and v (B, L,
J, K), K = D / H; J = H is the attention of arXiv 1706.03762. A state holds k and v of the
positions before, (B, S, J, K).
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from elas_jax.common.fields import at_least, divides
from elas_jax.common.limits import check_array
from elas_jax.ops.attention import cached_attention, causal_attention, full_attention
from elas_jax.systems.kinds import Map, Parts
from elas_jax.systems.mixers.common import check_pairs

State = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class MHA:
  heads: int = 4  # H, a divisor of D; the head size is K = D / H. The default is ours
  kv_heads: int = 0  # J, heads of keys and values, a divisor of H; 0: as many as H

  def __post_init__(self):
    if self.kv_heads == self.heads:  # one way to say it, so that equal models are equal
      object.__setattr__(self, 'kv_heads', 0)

  def check(self, where: str, config: Any) -> None:
    at_least(1, where, self, 'heads')
    at_least(0, where, self, 'kv_heads')
    width = config.model.width
    divides(f'{where}.heads', self.heads, 'model.width', width)
    if self.kv_heads:
      divides(f'{where}.kv_heads', self.kv_heads, f'{where}.heads', self.heads)
    check_pairs(where, self.heads, config)
    text = config.traits.text
    length = 'data.sequence_length' if text else 'the patches of an image', config.length
    rows = config.data.batch_size // max(config.train.accumulation, 1)
    check_array(
      ('model.layers' if text else 'model.depth', config.model.stack.layers),
      ('the rows of a micro-batch', rows),
      (f'{where}.heads', self.heads),
      length,
      length,
    )

  def make(self, parts: Parts, name: str) -> nn.Module:
    return Module(self, parts, name=name)

  def segments(self) -> bool:
    return True

  def head_size(self, parts: Parts) -> int:
    return parts.width // self.heads

  @property
  def groups(self) -> int:
    """J."""
    return self.kv_heads or self.heads

  def maps(self, parts: Parts) -> dict[str, Map]:
    D, inner = parts.width, self.groups * self.head_size(parts)
    return {
      'query': Map(D, D, 'out'),
      'key': Map(D, inner, 'out'),
      'value': Map(D, inner, 'out'),
      'output': Map(D, D, 'in'),
    }

  def empty_state(self, parts: Parts, batch: int, length: int) -> State:
    """Keys and values (B, S, J, K) of one layer, zeros."""
    shape = (batch, length, self.groups, self.head_size(parts))
    zeros = jnp.zeros(shape, parts.compute_dtype)
    return {'k': zeros, 'v': zeros}

  def flops(self, parts: Parts, length: int) -> float:
    """Beside the maps, 12 H K L a token: the convention of PaLM (arXiv 2204.02311,
    appendix B), which ignores that half of the products are hidden."""
    return 12.0 * parts.width * length


class Module(nn.Module):
  kind: MHA
  parts: Parts

  @nn.compact
  def __call__(
    self,
    x_BxLxD: jax.Array,
    angles: Any,
    state: State | None,
    start: Any,
    segments_BxL: jax.Array | None = None,
  ) -> tuple[jax.Array, State | None]:
    """`state` holds keys and values of positions before `start`; None: no state."""
    kind, parts = self.kind, self.parts
    B, L, D = x_BxLxD.shape
    K = kind.head_size(parts)

    def heads(name: str, count: int) -> jax.Array:
      y = parts.linear.make(count * K, parts, name=name)(x_BxLxD)
      return y.reshape(B, L, count, K)

    q_BxLxHxK = parts.position.rotate(heads('query', kind.heads), angles)
    k_BxLxJxK = parts.position.rotate(heads('key', kind.groups), angles)
    v_BxLxJxK = heads('value', kind.groups)
    if state is None and parts.causal:
      y_BxLxHxK = causal_attention(q_BxLxHxK, k_BxLxJxK, v_BxLxJxK, segments_BxL)
    elif state is None:
      y_BxLxHxK = full_attention(q_BxLxHxK, k_BxLxJxK, v_BxLxJxK)
    else:
      write = lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new, start, 1)
      state = {'k': write(state['k'], k_BxLxJxK), 'v': write(state['v'], v_BxLxJxK)}
      y_BxLxHxK = cached_attention(q_BxLxHxK, state['k'], state['v'], start)
    output = parts.linear.make(D, parts, name='output')
    return output(y_BxLxHxK.reshape(B, L, kind.heads * K)), state


CASES = (MHA(heads=2), MHA(heads=2, kv_heads=1))


def truth(kind: MHA, x: np.ndarray, p: dict, linear: Any, position: Any) -> np.ndarray:
  """`position` turns (B, L, H, K) of the positions 0, 1, ...; head by head."""
  B, L, D = x.shape
  K = D // kind.heads
  heads = lambda name: linear(x, p[name]).reshape(B, L, -1, K)
  q, k, v = position(heads('query')), position(heads('key')), heads('value')
  y = np.empty((B, L, kind.heads, K))
  share = kind.heads // k.shape[2]
  for h in range(kind.heads):
    for t in range(L):
      scores = np.einsum('bk,bsk->bs', q[:, t, h], k[:, : t + 1, h // share]) / K**0.5
      weights = np.exp(scores - scores.max(1, keepdims=True))
      weights /= weights.sum(1, keepdims=True)
      y[:, t, h] = np.einsum('bs,bsk->bk', weights, v[:, : t + 1, h // share])
  return linear(y.reshape(B, L, D), p['output'])
