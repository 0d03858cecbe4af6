"""Attention layers by name: (x, angles, cache) -> (output, new cache)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from elas_jax.config.config import ModelConfig
from elas_jax.layers.linear import LINEARS
from elas_jax.ops.attention import cached_attention, causal_attention, rotate

Cache = dict[str, jax.Array]


class MultiHeadAttention(nn.Module):
  """Causal attention with rotary embeddings and H / J query heads per key-value head."""

  config: ModelConfig

  @nn.compact
  def __call__(
    self, x_BxLxD: jax.Array, angles_LxK2: jax.Array, cache: Cache | None, start: Any
  ) -> tuple[jax.Array, Cache | None]:
    """`cache` holds keys and values of positions before `start`; None: no cache."""
    c, linear = self.config, LINEARS[self.config.linear]
    B, L, _ = x_BxLxD.shape

    def heads(name: str, count: int) -> jax.Array:
      y = linear(count * c.head_size, c, name=name)(x_BxLxD)
      return y.reshape(B, L, count, c.head_size)

    q_BxLxHxK = rotate(heads('query', c.heads), angles_LxK2)
    k_BxLxJxK = rotate(heads('key', c.kv_heads), angles_LxK2)
    v_BxLxJxK = heads('value', c.kv_heads)
    if cache is None:
      y_BxLxHxK = causal_attention(q_BxLxHxK, k_BxLxJxK, v_BxLxJxK)
    else:
      write = lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new, start, 1)
      cache = {'k': write(cache['k'], k_BxLxJxK), 'v': write(cache['v'], v_BxLxJxK)}
      y_BxLxHxK = cached_attention(q_BxLxHxK, cache['k'], cache['v'], start)
    output = linear(c.width, c, name='output')
    return output(y_BxLxHxK.reshape(B, L, c.heads * c.head_size)), cache

  @staticmethod
  def empty_cache(config: ModelConfig, batch: int, length: int) -> Cache:
    """Keys and values (B, S, J, K) of one layer, zeros."""
    shape = (batch, length, config.kv_heads, config.head_size)
    zeros = jnp.zeros(shape, config.compute_dtype)
    return {'k': zeros, 'v': zeros}


ATTENTIONS = {'mha': MultiHeadAttention}
