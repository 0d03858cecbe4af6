"""Rotary embeddings and causal attention."""

from typing import Any

import jax
import jax.numpy as jnp


def rotary_angles(positions_L: jax.Array, head_size: int, base: float) -> jax.Array:
  """Angles (L, K/2): position * base^(-2i/K), in float32 (RoFormer, arXiv 2104.09864)."""
  frequencies = base ** (-jnp.arange(0, head_size, 2, dtype=jnp.float32) / head_size)
  return positions_L.astype(jnp.float32)[:, None] * frequencies[None, :]


def rotate(x_BxLxHxK: jax.Array, angles_LxK2: jax.Array) -> jax.Array:
  """Turns the pairs (x_i, x_{i + K/2}) by the angle of their position.

  The half-split pairing of the LLaMA checkpoints on Hugging Face, not the interleaved
  one of the paper; the two differ by a fixed permutation of each head's entries.
  """
  cos = jnp.cos(angles_LxK2)[None, :, None, :].astype(x_BxLxHxK.dtype)
  sin = jnp.sin(angles_LxK2)[None, :, None, :].astype(x_BxLxHxK.dtype)
  first, second = jnp.split(x_BxLxHxK, 2, axis=-1)
  return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def causal_attention(
  q_BxLxHxK: jax.Array, k_BxLxJxK: jax.Array, v_BxLxJxK: jax.Array
) -> jax.Array:
  """softmax(q k^T / sqrt(K)) v, each query seeing the keys up to its own position.

  J key-value heads serve H query heads in groups of H / J (arXiv 2305.13245). Softmax
  in float32. On a GPU the bf16 case runs cuDNN's flash attention; elsewhere queries go
  in blocks that see only the keys before their end, which skips half of the products.
  """
  if jax.default_backend() == 'gpu' and q_BxLxHxK.dtype == jnp.bfloat16:
    return jax.nn.dot_product_attention(
      q_BxLxHxK, k_BxLxJxK, v_BxLxJxK, is_causal=True, implementation='cudnn'
    )
  L = q_BxLxHxK.shape[1]
  size = max(64, -(-L // 8))  # at most 8 blocks, since each is compiled on its own
  blocks = [
    cached_attention(q_BxLxHxK[:, i : i + size], k_BxLxJxK, v_BxLxJxK, i)
    for i in range(0, L, size)
  ]
  return jnp.concatenate(blocks, axis=1)


def cached_attention(
  q_BxLxHxK: jax.Array, k_BxSxJxK: jax.Array, v_BxSxJxK: jax.Array, start: Any
) -> jax.Array:
  """Attention of queries at positions start, start + 1, ... to S >= start + L keys."""
  B, L, H, K = q_BxLxHxK.shape
  if isinstance(start, int):
    k_BxSxJxK, v_BxSxJxK = k_BxSxJxK[:, : start + L], v_BxSxJxK[:, : start + L]
  S, J = k_BxSxJxK.shape[1:3]
  q_BxJxILxK = (q_BxLxHxK * K**-0.5).transpose(0, 2, 1, 3).reshape(B, J, -1, K)
  k_BxJxKxS, v_BxJxSxK = (
    k_BxSxJxK.transpose(0, 2, 3, 1),
    v_BxSxJxK.transpose(0, 2, 1, 3),
  )
  s = jnp.matmul(q_BxJxILxK, k_BxJxKxS, preferred_element_type=jnp.float32)
  hidden_LxS = (start + jnp.arange(L))[:, None] < jnp.arange(S)[None, :]
  bias = jnp.where(hidden_LxS, -1e30, 0.0)
  s = s + jnp.broadcast_to(bias, (H // J, L, S)).reshape(1, 1, -1, S)
  top = jax.lax.stop_gradient(s.max(axis=-1, keepdims=True))
  e = jnp.exp(s - top)
  y = jnp.matmul(e.astype(q_BxLxHxK.dtype), v_BxJxSxK, preferred_element_type=jnp.float32)
  y = (y / e.sum(axis=-1, keepdims=True)).astype(q_BxLxHxK.dtype)
  return y.reshape(B, H, L, K).transpose(0, 2, 1, 3)
