"""Attention from a latent of keys and values, H heads (MLA, arXiv 2405.04434, 2503.12167).

  c = norm(latent(x)),  r = rotate(rope_key(x)),  k_h = [key_h(c), r],  v_h = value_h(c)
  q_h = [n_h, rotate(u_h)],  [n_h, u_h] = query_h(x), or query_h(norm(query_latent(x)))
  y_h = softmax(q_h k_h^T / sqrt(nope_size + rope_heads rope_size)) v_h

then output(y). x (B, L, D), c (B, L, kv_rank), r (B, L, rope_heads rope_size), the same for
all heads, n_h and key_h(c) (B, L, nope_size), v_h (B, L, value_size). One layer of a state
holds c and r of the positions before, kv_rank + rope_heads rope_size numbers each: with the
defaults, which are PLM's, 576 where mha has 4096. Norms are RMSNorms with a learnt scale.

Decoding absorbs the maps from the latent, where these are plain products: key_h goes into
the query, n_h W_h^T, and value_h behind the weighted mean of c, so that no key or value of
a head is formed. Of many queries at once, a prompt, the FLOPs are fewer with them formed:
see `absorbs`.

The authors' code joins the maps latent and rope_key to one (kv_a_proj_with_mqa), and key
and value (kv_b_proj), head by head: the same for dense maps. It turns interleaved pairs of
entries, the kind of position here the pairs (i, i + rope_size / 2): a fixed permutation of
the rope entries of queries and keys. rope_heads > 1 is what GQA becomes
(converters/gqa_to_mla.py): several keys side by side, each rotated on its own. A qk_norm
there is not: keys of heads would have to be formed for it. Checked against DeepSeek-V2 and
-V3 in transformers, see tests/golden/record_attention.py.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from elas_jax.common.errors import UserError
from elas_jax.common.fields import at_least
from elas_jax.common.limits import check_array
from elas_jax.ops import linear as ops
from elas_jax.ops.attention import (
  by_head,
  cached_attention,
  causal_attention,
  full_attention,
  latent_attention,
)
from elas_jax.systems.kinds import Map, Parts, kernels, room
from elas_jax.systems.mixers.common import (
  State,
  attention_truth,
  check_scores,
  turns_pairs,
  written,
)
from elas_jax.systems.norms.rms import RMS

NORM = RMS()  # its epsilon is that of the authors' code


@dataclasses.dataclass(frozen=True)
class MLA:
  heads: int = 16  # H
  kv_rank: int = 512  # entries of the latent of keys and values
  query_rank: int = 0  # entries of a latent of queries, 0: none. DeepSeek-V2: 1536
  nope_size: int = 128  # entries of a head's queries and keys that are not rotated
  rope_size: int = 64  # rotated entries, of a key that all heads share
  value_size: int = 128  # entries of a head's values
  rope_heads: int = 1  # such keys side by side. More than one is ours, for what GQA becomes
  latent_norm: bool = True  # RMSNorm of the latents

  def check(self, where: str, config: Any) -> None:
    at_least(1, where, self, 'heads kv_rank rope_size value_size rope_heads')
    at_least(0, where, self, 'query_rank nope_size')
    if turns_pairs(config) and self.rope_size % 2:
      raise UserError(
        f'{where}.rope_size={self.rope_size}: must be even, since rotary embeddings turn '
        'pairs of entries'
      )
    check_scores(where, self.heads, config)
    parts = config.model.stack.attention_parts
    for name, one in self.maps(parts).items():
      sides = (f'inputs of {where}.{name}', one.inputs), ('its outputs', one.outputs)
      check_array(('the layers', config.model.stack.layers), *sides)

  def make(self, parts: Parts, name: str) -> nn.Module:
    return Module(self, parts, name=name)

  def segments(self) -> bool:
    return True

  def head_size(self, parts: Parts) -> int:
    """Of what is rotated."""
    return self.rope_size

  @property
  def rope(self) -> int:
    """Rotated entries of a query, and of the key that all heads share."""
    return self.rope_heads * self.rope_size

  @property
  def query_size(self) -> int:
    return self.nope_size + self.rope

  def maps(self, parts: Parts) -> dict[str, Map]:
    D, H, C = parts.width, self.heads, self.kv_rank
    found = {'query': Map(self.query_rank or D, H * self.query_size, 'out')}
    if self.query_rank:
      found = {'query_latent': Map(D, self.query_rank, 'out')} | found
    found |= {'latent': Map(D, C, 'out'), 'rope_key': Map(D, self.rope, 'out')}
    if self.nope_size:
      found['key'] = Map(C, H * self.nope_size, 'out')
    found['value'] = Map(C, H * self.value_size, 'out')
    return found | {'output': Map(H * self.value_size, D, 'in')}

  def inner(self, parts: Parts) -> dict[str, Any]:
    names = ['latent_norm'] + ['query_norm'] * bool(self.query_rank)
    return dict.fromkeys(names, NORM) if self.latent_norm else {}

  def empty_state(self, parts: Parts, batch: int, length: int) -> State:
    """Latents (B, S, kv_rank) and rotated keys (B, S, rope_heads rope_size), zeros."""
    zeros = lambda size: jnp.zeros((batch, length, size), parts.compute_dtype)
    return {'latent': zeros(self.kv_rank), 'rope_key': zeros(self.rope)}

  def flops(self, parts: Parts, length: int) -> float:
    """Beside the maps, 6 H L (query_size + value_size) a token, counted as in common.py."""
    return 6.0 * self.heads * length * (self.query_size + self.value_size)

  def absorbs(self, parts: Parts, queries: int) -> bool:
    """Whether so many queries at once leave the keys and values of a cache unformed.

    They need maps that are plain products. A cached position and head then costs each query
    kv_rank products for its value and, if nope_size, as many for its key, in place of
    value_size and nope_size; but not the kv_rank x (nope_size + value_size) that form both.
    """
    if not kernels(parts.linear) or parts.use_bias:
      return False
    formed = self.nope_size + self.value_size
    more = self.kv_rank * (2 if self.nope_size else 1) - formed
    return queries * more <= self.kv_rank * formed


class Module(nn.Module):
  kind: MLA
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
    """`state` holds latents and rotated keys of positions before `start`."""
    kind, parts = self.kind, self.parts
    B, L, D = x_BxLxD.shape
    n_BxLxHxN, u_BxLxHxR = self.queries(x_BxLxD, angles)
    c_BxLxC = self.normed('latent_norm', self.linear('latent')(x_BxLxD))
    r_BxLxR = self.rotated(self.linear('rope_key')(x_BxLxD), angles)
    if state is not None:
      state = {
        'latent': written(state['latent'], c_BxLxC, start, axis=1),
        'rope_key': written(state['rope_key'], r_BxLxR, start, axis=1),
      }
      c_BxSxC, r_BxSxR = state['latent'], state['rope_key']
    if state is not None and kind.absorbs(parts, L):
      y_BxLxHxV = self.absorbed(n_BxLxHxN, u_BxLxHxR, c_BxSxC, r_BxSxR, start)
    elif state is not None:
      q_BxLxHxK = jnp.concatenate([n_BxLxHxN, u_BxLxHxR], axis=-1)
      keys_values = map(by_head, self.formed(c_BxSxC, r_BxSxR))
      y_BxLxHxV = cached_attention(q_BxLxHxK, *keys_values, start)
    else:
      q_BxLxHxK = jnp.concatenate([n_BxLxHxN, u_BxLxHxR], axis=-1)
      keys_values = self.formed(c_BxLxC, r_BxLxR)
      if parts.causal:
        y_BxLxHxV = causal_attention(q_BxLxHxK, *keys_values, segments_BxL)
      else:
        y_BxLxHxV = full_attention(q_BxLxHxK, *keys_values)
    return self.linear('output')(y_BxLxHxV.reshape(B, L, -1)), state

  def linear(self, name: str) -> nn.Module:
    return self.parts.linear.make(self.maps[name].outputs, self.parts, name=name)

  @property
  def maps(self) -> dict[str, Map]:
    return self.kind.maps(self.parts)

  def normed(self, name: str, x: jax.Array) -> jax.Array:
    return NORM.make(self.parts, name=name)(x) if self.kind.latent_norm else x

  def rotated(self, x_BxLxR: jax.Array, angles: Any) -> jax.Array:
    """Keys side by side, each by the angles of its position."""
    B, L, R = x_BxLxR.shape
    x_BxLxJxR = x_BxLxR.reshape(B, L, -1, self.kind.rope_size)
    return self.parts.position.rotate(x_BxLxJxR, angles).reshape(B, L, R)

  def queries(self, x_BxLxD: jax.Array, angles: Any) -> tuple[jax.Array, jax.Array]:
    """Of each head the entries that are not rotated, and those that are."""
    kind, (B, L, _) = self.kind, x_BxLxD.shape
    if kind.query_rank:
      x_BxLxD = self.normed('query_norm', self.linear('query_latent')(x_BxLxD))
    q_BxLxHxK = self.linear('query')(x_BxLxD).reshape(B, L, kind.heads, -1)
    n_BxLxHxN, u_BxLxHxR = jnp.split(q_BxLxHxK, [kind.nope_size], axis=-1)
    u_BxLxM = self.rotated(u_BxLxHxR.reshape(B, L, -1), angles)  # M = H R
    return n_BxLxHxN, u_BxLxM.reshape(u_BxLxHxR.shape)

  def formed(self, c_BxSxC: jax.Array, r_BxSxR: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Keys and values of all heads."""
    kind, (B, S, R) = self.kind, r_BxSxR.shape
    heads = lambda name: self.linear(name)(c_BxSxC).reshape(B, S, kind.heads, -1)
    k_BxSxHxK = jnp.broadcast_to(r_BxSxR[:, :, None], (B, S, kind.heads, R))
    if kind.nope_size:
      k_BxSxHxK = jnp.concatenate([heads('key'), k_BxSxHxK], axis=-1)
    return k_BxSxHxK, heads('value')

  def absorbed(
    self,
    n_BxLxHxN: jax.Array,
    u_BxLxHxR: jax.Array,
    c_BxSxC: jax.Array,
    r_BxSxR: jax.Array,
    start: Any,
  ) -> jax.Array:
    """The same as attention to what is formed, which it leaves unformed.

    A map is the product of kernels W_1 ... W_m, of which the last has a part for each head.
    """
    kind = self.kind

    def by_part(name: str) -> tuple[tuple[jax.Array, ...], jax.Array]:
      *first, last = self.linear(name).kernels(kind.kv_rank)
      last_IxHxO = last.reshape(len(last), kind.heads, -1)
      return tuple(first), last_IxHxO.astype(c_BxSxC.dtype)

    if kind.nope_size:
      first, last_IxHxN = by_part('key')
      q_BxLxHxI = jnp.einsum('blhn,ihn->blhi', n_BxLxHxN, last_IxHxN)
      q_BxLxHxC = ops.chain(q_BxLxHxI, tuple(w.T for w in reversed(first)))
      scale = kind.query_size**-0.5
      y_BxLxHxC = latent_attention(q_BxLxHxC, u_BxLxHxR, c_BxSxC, r_BxSxR, scale, start)
    else:
      y_BxLxHxC = cached_attention(u_BxLxHxR, r_BxSxR[:, None], c_BxSxC[:, None], start)
    first, last_IxHxV = by_part('value')
    return jnp.einsum('blhi,ihv->blhv', ops.chain(y_BxLxHxC, first), last_IxHxV)


SMALL = MLA(2, kv_rank=6, nope_size=4, rope_size=2, value_size=3)
CASES = (
  SMALL,
  dataclasses.replace(SMALL, query_rank=4),
  dataclasses.replace(SMALL, nope_size=0, rope_heads=2, latent_norm=False),
)


def truth(kind: MLA, x: np.ndarray, p: dict, linear: Any, position: Any) -> np.ndarray:
  """`position` turns (B, L, H, R) of the positions 0, 1, ...; keys are formed."""
  B, L, D = x.shape
  H, N, R = kind.heads, kind.nope_size, kind.rope_size
  norm = lambda name, z: room(NORM).truth(NORM, z, p[name]) if kind.latent_norm else z
  turned = lambda z: position(z.reshape(B, L, -1, R)).reshape(z.shape)
  c, r = norm('latent_norm', linear(x, p['latent'])), turned(linear(x, p['rope_key']))
  z = norm('query_norm', linear(x, p['query_latent'])) if kind.query_rank else x
  q = linear(z, p['query']).reshape(B, L, H, -1)
  q = np.concatenate([q[..., :N], turned(q[..., N:])], -1)
  k = np.repeat(r[:, :, None], H, 2)
  if N:
    k = np.concatenate([linear(c, p['key']).reshape(B, L, H, N), k], -1)
  y = attention_truth(q, k, linear(c, p['value']).reshape(B, L, H, -1))
  return linear(y.reshape(B, L, -1), p['output'])
