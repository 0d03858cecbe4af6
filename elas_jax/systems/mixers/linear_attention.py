"""Attention by a kernel of features instead of a softmax (arXiv 2006.16236).

  y_t = sum_s (R_t f_t)^T (R_s g_s) v_s / (sum_s f_t^T g_s + 1e-6),  f = phi(q), g = phi(k),
  phi(x) = elu(x) + 1, that is x + 1 above 0 and e^x below

over s <= t in a decoder and all s elsewhere; then output(y). R turns by position, where the
kind of position turns queries and keys, in the numerator alone (RoFormer, arXiv 2104.09864,
eq. 19). x (B, L, D), q, k, v (B, L, H, K), K = D / H. A state holds the sums over the
positions before: 'products' (B, H, K, K) of g and v, 'features' (B, H, K) of g; its size
does not grow. In float32. With qk_norm, q and k pass the norms of common.py before phi.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from elas_jax.common.fields import at_least, divides
from elas_jax.ops.linear_attention import causal_linear_attention, full_linear_attention
from elas_jax.systems.kinds import Map, Parts, free
from elas_jax.systems.mixers.common import (
  check_pairs,
  qk_norm_truth,
  qk_normed,
  qk_norms,
)

State = dict[str, jax.Array]
EPSILON = 1e-6  # of the authors' code, beside the sum that is divided by


@dataclasses.dataclass(frozen=True)
class LinearAttention:
  heads: int = 4  # H, a divisor of D; the head size is K = D / H. The default is ours
  chunk: int = free(64)  # positions whose products are formed at once
  qk_norm: bool = False  # RMSNorm of each query and key, before their features. Ours

  def check(self, where: str, config: Any) -> None:
    at_least(1, where, self, 'heads chunk')
    divides(f'{where}.heads', self.heads, 'model.width', config.model.width)
    check_pairs(where, self.heads, config)

  def make(self, parts: Parts, name: str) -> nn.Module:
    return Module(self, parts, name=name)

  def segments(self) -> bool:
    return True

  def head_size(self, parts: Parts) -> int:
    return parts.width // self.heads

  def inner(self, parts: Parts) -> dict[str, Any]:
    return qk_norms(self)

  def maps(self, parts: Parts) -> dict[str, Map]:
    D = parts.width
    inner = {name: Map(D, D, 'out') for name in ('query', 'key', 'value')}
    return inner | {'output': Map(D, D, 'in')}

  def empty_state(self, parts: Parts, batch: int, length: int) -> State:
    """Zeros; the same for any length."""
    H, K = self.heads, self.head_size(parts)
    return {
      'products': jnp.zeros((batch, H, K, K), jnp.float32),
      'features': jnp.zeros((batch, H, K), jnp.float32),
    }

  def flops(self, parts: Parts, length: int) -> float:
    """Beside the maps, 12 H K^2 a token: into the state and out of it."""
    return 12.0 * parts.width * self.head_size(parts)


def features(x: jax.Array) -> jax.Array:
  """elu(x) + 1 without its cancellation: at -20 there would be nothing left."""
  x = x.astype(jnp.float32)
  return jnp.where(x > 0, x + 1, jnp.exp(jnp.minimum(x, 0)))


class Module(nn.Module):
  kind: LinearAttention
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
    kind, parts = self.kind, self.parts
    B, L, D = x_BxLxD.shape

    def heads(name: str) -> jax.Array:
      y = parts.linear.make(D, parts, name=name)(x_BxLxD)
      return y.reshape(B, L, kind.heads, -1)

    q_BxLxHxK, k_BxLxHxK = qk_normed(kind, parts, heads('query'), heads('key'))
    f_BxLxHxK, g_BxLxHxK = features(q_BxLxHxK), features(k_BxLxHxK)
    turned = [parts.position.rotate(x, angles) for x in (f_BxLxHxK, g_BxLxHxK)]
    v_BxLxHxK = heads('value')
    if parts.causal:
      before = kind.empty_state(parts, B, L) if state is None else state
      y_BxLxHxK, products = causal_linear_attention(
        *turned, v_BxLxHxK, before['products'], kind.chunk, segments_BxL
      )
      sums_BxLxHx1, counted = causal_linear_attention(
        f_BxLxHxK,
        g_BxLxHxK,
        jnp.ones((B, L, kind.heads, 1)),
        before['features'][..., None],
        kind.chunk,
        segments_BxL,
      )
      if state is not None:
        state = {'products': products, 'features': counted[..., 0]}
    else:
      y_BxLxHxK = full_linear_attention(*turned, v_BxLxHxK)
      sums_BxLxHxK = g_BxLxHxK.sum(axis=1, keepdims=True)
      sums_BxLxHx1 = (f_BxLxHxK * sums_BxLxHxK).sum(axis=-1, keepdims=True)
    y_BxLxHxK /= sums_BxLxHx1 + EPSILON
    y_BxLxD = y_BxLxHxK.astype(x_BxLxD.dtype).reshape(B, L, D)
    return parts.linear.make(D, parts, name='output')(y_BxLxD), state


CASES = (LinearAttention(heads=2), LinearAttention(heads=1, chunk=2, qk_norm=True))


def truth(
  kind: LinearAttention, x: np.ndarray, p: dict, linear: Any, position: Any
) -> np.ndarray:
  """Of a decoder, position by position."""
  B, L, D = x.shape
  heads = lambda name: linear(x, p[name]).reshape(B, L, kind.heads, -1)
  phi = lambda z: np.where(z > 0, z + 1, np.exp(np.minimum(z, 0)))
  normed = lambda name: qk_norm_truth(kind, heads(name), p.get(f'{name}_norm'))
  f, g, v = phi(normed('query')), phi(normed('key')), heads('value')
  turned_f, turned_g = position(f), position(g)
  y = np.empty_like(v)
  for t in range(L):
    seen = slice(0, t + 1)
    scores = np.einsum('bhk,bshk->bhs', turned_f[:, t], turned_g[:, seen])
    total = np.einsum('bhk,bshk->bh', f[:, t], g[:, seen])
    y[:, t] = np.einsum('bhs,bshk->bhk', scores, v[:, seen]) / (total[:, :, None] + EPSILON)
  return linear(y.reshape(B, L, D), p['output'])
