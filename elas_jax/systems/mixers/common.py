"""What mixers share: attention of H_q query heads to J key-value heads, checks of heads.

  q = rotate(query(x)),  k = rotate(key(x)),  v = value(x),  y = softmax(q k^T / sqrt(K)) v

then output(y); with a causal mask in a decoder. x (B, L, D), q (B, L, H_q, K), k and v
(B, L, J, K), K = D / H: groups of H_q / J query heads share keys and values. A state holds
k and v of the positions before, (B, J, S, K).

With qk_norm, q and k of each head pass an RMSNorm with a learnt scale (K,), one for all
heads, before they are rotated: as Qwen3 has it (arXiv 2505.09388, and its public code),
where arXiv 2010.04245 normalises to length 1 and 2302.05442 by LayerNorm.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from elas_jax.common.errors import UserError
from elas_jax.common.fields import at_least, divides
from elas_jax.common.limits import check_array
from elas_jax.ops.attention import (
  by_head,
  cached_attention,
  causal_attention,
  full_attention,
)
from elas_jax.systems.kinds import Map, Parts, about, room
from elas_jax.systems.norms.rms import RMS
from elas_jax.systems.sown import sow

State = dict[str, jax.Array]
QK_NORM = RMS()  # its epsilon is Qwen3's


class SharedHeads:
  """What the kinds of such attention are: they have the fields `heads` and `qk_norm`.

  Attributes:
    heads: H, by which the head size is D / H.
    qk_norm: whether queries and keys are normalised.
    queries: H_q, heads of queries.
    groups: J, heads of keys and values, a divisor of H_q.
  """

  heads: int
  qk_norm: bool
  queries: int
  groups: int

  def check(self, where: str, config: Any) -> None:
    at_least(1, where, self, 'heads')
    divides(f'{where}.heads', self.heads, 'model.width', config.model.width)
    check_pairs(where, self.heads, config)
    check_scores(where, self.heads, config)

  def make(self, parts: Parts, name: str) -> nn.Module:
    return Module(self, parts, name=name)

  def segments(self) -> bool:
    return True

  def head_size(self, parts: Parts) -> int:
    return parts.width // self.heads

  def maps(self, parts: Parts) -> dict[str, Map]:
    D, K = parts.width, self.head_size(parts)
    return {
      'query': Map(D, self.queries * K, 'out'),
      'key': Map(D, self.groups * K, 'out'),
      'value': Map(D, self.groups * K, 'out'),
      'output': Map(self.queries * K, D, 'in'),
    }

  def inner(self, parts: Parts) -> dict[str, Any]:
    return qk_norms(self)

  def empty_state(self, parts: Parts, batch: int, length: int) -> State:
    """Keys and values (B, J, S, K) of one layer, zeros."""
    shape = (batch, self.groups, length, self.head_size(parts))
    zeros = jnp.zeros(shape, parts.compute_dtype)
    return {'k': zeros, 'v': zeros}

  def flops(self, parts: Parts, length: int) -> float:
    """Beside the maps, 12 H_q K L a token: the convention of PaLM (arXiv 2204.02311,
    appendix B), which ignores that half of the products are hidden."""
    return 12.0 * self.queries * self.head_size(parts) * length


class Module(nn.Module):
  kind: SharedHeads
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

    q_BxLxHxK, k_BxLxJxK = heads('query', kind.queries), heads('key', kind.groups)
    v_BxLxJxK = heads('value', kind.groups)
    both = lambda: jnp.concatenate([k_BxLxJxK, v_BxLxJxK], axis=2)
    sow(self, 'keys_values', lambda: both().reshape(B * L, -1))
    q_BxLxHxK, k_BxLxJxK = qk_normed(kind, parts, q_BxLxHxK, k_BxLxJxK)
    q_BxLxHxK = parts.position.rotate(q_BxLxHxK, angles)
    k_BxLxJxK = parts.position.rotate(k_BxLxJxK, angles)
    if state is None and parts.causal:
      y_BxLxHxK = causal_attention(q_BxLxHxK, k_BxLxJxK, v_BxLxJxK, segments_BxL)
    elif state is None:
      y_BxLxHxK = full_attention(q_BxLxHxK, k_BxLxJxK, v_BxLxJxK)
    else:
      state = {
        'k': written(state['k'], by_head(k_BxLxJxK), start, axis=2),
        'v': written(state['v'], by_head(v_BxLxJxK), start, axis=2),
      }
      y_BxLxHxK = cached_attention(q_BxLxHxK, state['k'], state['v'], start)
    output = parts.linear.make(D, parts, name='output')
    return output(y_BxLxHxK.reshape(B, L, kind.queries * K)), state


def truth(
  kind: SharedHeads, x: np.ndarray, p: dict, linear: Any, position: Any
) -> np.ndarray:
  """`position` turns (B, L, H, K) of the positions 0, 1, ...; head by head."""
  B, L, D = x.shape
  K = D // kind.heads
  heads = lambda name: linear(x, p[name]).reshape(B, L, -1, K)
  normed = lambda name: qk_norm_truth(kind, heads(name), p.get(f'{name}_norm'))
  q, k, v = position(normed('query')), position(normed('key')), heads('value')
  y = attention_truth(q, k, v)
  return linear(y.reshape(B, L, -1), p['output'])


def attention_truth(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
  """Causal softmax(q k^T / sqrt(K)) v of (B, L, heads, size), one by one."""
  H, K = q.shape[2:]
  share = H // k.shape[2]
  y = np.empty((*q.shape[:3], v.shape[-1]))
  for h in range(H):
    for t in range(q.shape[1]):
      scores = np.einsum('bk,bsk->bs', q[:, t, h], k[:, : t + 1, h // share]) / K**0.5
      weights = np.exp(scores - scores.max(1, keepdims=True))
      weights /= weights.sum(1, keepdims=True)
      y[:, t, h] = np.einsum('bs,bsk->bk', weights, v[:, : t + 1, h // share])
  return y


def written(old: jax.Array, new: jax.Array, start: Any, axis: int) -> jax.Array:
  """A state with what is new at the positions start, start + 1, ... of an axis."""
  return jax.lax.dynamic_update_slice_in_dim(old, new, start, axis)


def qk_norms(kind: Any) -> dict[str, Any]:
  """The norms of queries and keys by name, for `inner`."""
  return dict.fromkeys(('query_norm', 'key_norm'), QK_NORM) if kind.qk_norm else {}


def qk_normed(
  kind: Any, parts: Parts, q_BxLxHxK: jax.Array, k_BxLxJxK: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Queries and keys, normalised if the kind says so; inside of a compact module."""
  if not kind.qk_norm:
    return q_BxLxHxK, k_BxLxJxK
  norm = lambda name: QK_NORM.make(parts, name=name)
  return norm('query_norm')(q_BxLxHxK), norm('key_norm')(k_BxLxJxK)


def qk_norm_truth(kind: Any, x_BxLxHxK: np.ndarray, p: dict | None) -> np.ndarray:
  return room(QK_NORM).truth(QK_NORM, x_BxLxHxK, p) if kind.qk_norm else x_BxLxHxK


def check_pairs(where: str, heads: int, config: Any) -> None:
  """Refuses odd head sizes where the kind of position turns pairs of entries."""
  if turns_pairs(config) and config.model.width // heads % 2:
    raise UserError(
      f'{where}.heads={heads}: model.width / {where}.heads = {config.model.width // heads} '
      'must be even, since rotary embeddings turn pairs of entries'
    )


def turns_pairs(config: Any) -> bool:
  """Whether the kind of position turns pairs of entries."""
  return about(config.model.stack.attention_parts.position, 'pairs', default=False)


def check_scores(where: str, heads: int, config: Any) -> None:
  """Refuses scores of so many heads that no machine holds."""
  text = config.traits.text
  length = 'data.sequence_length' if text else 'the patches of an image', config.length
  rows = config.data.batch_size // max(config.train.accumulation, 1)
  check_array(
    ('model.layers' if text else 'model.depth', config.model.stack.layers),
    ('the rows of a micro-batch', rows),
    (f'{where}.heads', heads),
    length,
    length,
  )


def check_share(where: str, heads: int, share: int) -> None:
  """Refuses a number of heads of which 1 / `share` are no whole number."""
  if heads % share:
    raise UserError(f'{where}.heads={heads}: must be a multiple of {share}')
