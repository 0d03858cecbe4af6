"""Rotary embeddings and attention."""

import jax
import jax.numpy as jnp


def rotary_angles(positions: jax.Array, head_size: int, base: float) -> jax.Array:
  """Positions * base^(-2i/K), in float32 (RoFormer, arXiv 2104.09864).

  Angles (L, K/2) of positions (L,), or (B, L, K/2) of (B, L).
  """
  frequencies = base ** (-jnp.arange(0, head_size, 2, dtype=jnp.float32) / head_size)
  return jnp.multiply.outer(positions.astype(jnp.float32), frequencies)


def rotate(x_BxLxHxK: jax.Array, angles: jax.Array) -> jax.Array:
  """Turns the pairs (x_i, x_{i + K/2}) by the angle of their position, (B, L, K/2) or,
  where all rows have the same, (L, K/2).

  The half-split pairing of the LLaMA checkpoints on Hugging Face, not the interleaved
  one of the paper; the two differ by a fixed permutation of each head's entries.
  """
  if angles.ndim == 2:
    angles = angles[None]
  cos, sin = jnp.cos(angles)[:, :, None], jnp.sin(angles)[:, :, None]
  first, second = jnp.split(x_BxLxHxK.astype(jnp.float32), 2, axis=-1)
  turned = jnp.concatenate(
    [first * cos - second * sin, second * cos + first * sin], axis=-1
  )
  return turned.astype(x_BxLxHxK.dtype)


def causal_attention(
  q_BxLxHxK: jax.Array,
  k_BxLxJxK: jax.Array,
  v_BxLxJxV: jax.Array,
  segments_BxL: jax.Array | None = None,
) -> jax.Array:
  """softmax(q k^T / sqrt(K)) v, each query seeing the keys up to its own position.

  With segments, of these only the keys whose segment is its own. The heads of the values
  may have a size of their own, V, which is that of the result's.

  J key-value heads serve H query heads in groups of H / J (arXiv 2305.13245). Softmax
  in float32. On a GPU, bf16 with a head size that cuDNN takes runs its flash
  attention; elsewhere queries go in blocks that see only the keys before their end, which
  skips half of the products.
  """
  # With a mask cuDNN has gradients for even lengths alone.
  even = segments_BxL is None or q_BxLxHxK.shape[1] % 2 == 0
  if _takes_flash(q_BxLxHxK, v_BxLxJxV) and even:
    # cuDNN's own segments are few, of a number known beforehand; a mask has any number.
    mask = None if segments_BxL is None else _same(segments_BxL, segments_BxL)[:, None]
    return jax.nn.dot_product_attention(
      q_BxLxHxK, k_BxLxJxK, v_BxLxJxV, mask=mask, is_causal=True, implementation='cudnn'
    )
  L = q_BxLxHxK.shape[1]
  size = max(64, -(-L // 8))  # at most 8 blocks, since each is compiled on its own
  q_BxJxGxLxK, k_BxJxLxK, v_BxJxLxV = _by_head(q_BxLxHxK, k_BxLxJxK, v_BxLxJxV)
  blocks = []
  for start in range(0, L, size):
    end = min(start + size, L)
    q_BxJxGxMxK = q_BxJxGxLxK[..., start:end, :]
    k_BxJxSxK, v_BxJxSxV = k_BxJxLxK[..., :end, :], v_BxJxLxV[..., :end, :]
    same = None
    if segments_BxL is not None:
      same = _same(segments_BxL[:, start:end], segments_BxL[:, :end])
    blocks.append(_attend(q_BxJxGxMxK, k_BxJxSxK, v_BxJxSxV, start, same))
  return _by_position(jnp.concatenate(blocks, axis=3))


def full_attention(
  q_BxLxHxK: jax.Array, k_BxSxJxK: jax.Array, v_BxSxJxV: jax.Array
) -> jax.Array:
  """softmax(q k^T / sqrt(K)) v, each query seeing all S keys; else as above."""
  if _takes_flash(q_BxLxHxK, v_BxSxJxV):
    return jax.nn.dot_product_attention(
      q_BxLxHxK, k_BxSxJxK, v_BxSxJxV, implementation='cudnn'
    )
  by_head = _by_head(q_BxLxHxK, k_BxSxJxK, v_BxSxJxV)
  return _by_position(_attend(*by_head, k_BxSxJxK.shape[1]))


def _same(queries_BxL: jax.Array, keys_BxS: jax.Array) -> jax.Array:
  """Whether a query and a key have one segment, (B, L, S)."""
  return queries_BxL[:, :, None] == keys_BxS[:, None, :]


def _takes_flash(q_BxLxHxK: jax.Array, v_BxSxJxV: jax.Array) -> bool:
  K, V = q_BxLxHxK.shape[-1], v_BxSxJxV.shape[-1]
  fits = q_BxLxHxK.dtype == jnp.bfloat16 and K % 8 == 0 and K <= 128 and K == V
  return fits and jax.default_backend() == 'gpu'


def cached_attention(
  q_BxLxHxK: jax.Array, k_BxJxSxK: jax.Array, v_BxJxSxV: jax.Array, start: jax.Array
) -> jax.Array:
  """Attention of queries at positions start, start + 1, ... to a cache of S positions.

  What the cache holds behind a query's position is not looked at. It lies by head, as its
  products take it: otherwise each step would copy all of it.
  """
  q_BxJxGxLxK = _queries_by_head(q_BxLxHxK, k_BxJxSxK.shape[1])
  return _by_position(_attend(q_BxJxGxLxK, k_BxJxSxK, v_BxJxSxV, start))


def latent_attention(
  q_BxLxHxC: jax.Array,
  q_BxLxHxR: jax.Array,
  latent_BxSxC: jax.Array,
  key_BxSxR: jax.Array,
  scale: float,
  start: jax.Array,
) -> jax.Array:
  """softmax((q latent^T + q' key^T) scale) latent: as above, to keys that all heads share.

  What multi-head latent attention (arXiv 2405.04434) is once its maps from the latents are
  in the queries q (B, L, H, C) and behind the result (B, L, H, C). Nothing of S positions
  and H heads is formed but the scores.
  """
  B, L, H, C = q_BxLxHxC.shape
  S = latent_BxSxC.shape[1]

  def scores(q_BxLxHxK, k_BxSxK):
    q_BxHLxK = q_BxLxHxK.transpose(0, 2, 1, 3).reshape(B, H * L, -1)
    wide = {'preferred_element_type': jnp.float32}
    return jnp.einsum('bmk,bsk->bms', q_BxHLxK, k_BxSxK, **wide)

  s_BxHLxS = scores(q_BxLxHxC, latent_BxSxC) + scores(q_BxLxHxR, key_BxSxR)
  hidden_1xHLxS = jnp.tile(_later(start, L, S), (1, H, 1))
  y_BxHLxC = _weighted(s_BxHLxS * scale, hidden_1xHLxS, latent_BxSxC)
  return y_BxHLxC.reshape(B, H, L, C).transpose(0, 2, 1, 3)


def _by_head(q_BxLxHxK, k_BxSxJxK, v_BxSxJxV):
  """Queries (B, J, G, L, K), keys (B, J, S, K) and values (B, J, S, V), where H = J G."""
  q_BxJxGxLxK = _queries_by_head(q_BxLxHxK, k_BxSxJxK.shape[2])
  return q_BxJxGxLxK, by_head(k_BxSxJxK), by_head(v_BxSxJxV)


def by_head(x_BxSxJxK: jax.Array) -> jax.Array:
  """(B, J, S, K), as a cache has it."""
  return x_BxSxJxK.transpose(0, 2, 1, 3)


def _queries_by_head(q_BxLxHxK, J):
  B, L, H, K = q_BxLxHxK.shape
  return q_BxLxHxK.reshape(B, L, J, H // J, K).transpose(0, 2, 3, 1, 4)


def _by_position(y_BxJxGxLxV):
  B, J, G, L, V = y_BxJxGxLxV.shape
  return y_BxJxGxLxV.transpose(0, 3, 1, 2, 4).reshape(B, L, J * G, V)


def _attend(q_BxJxGxLxK, k_BxJxSxK, v_BxJxSxV, start, same_BxLxS=None):
  B, J, G, L, K = q_BxJxGxLxK.shape
  q_BxJxGLxK = q_BxJxGxLxK.reshape(B, J, G * L, K)
  s = jnp.einsum(
    'bjlk,bjsk->bjls', q_BxJxGLxK, k_BxJxSxK, preferred_element_type=jnp.float32
  )
  hidden_1xLxS = _later(start, L, k_BxJxSxK.shape[2])
  if same_BxLxS is not None:
    hidden_1xLxS = hidden_1xLxS | ~same_BxLxS  # of each row its own
  hidden_1xGLxS = jnp.tile(hidden_1xLxS, (1, G, 1))
  y = _weighted(s * K**-0.5, hidden_1xGLxS[:, None], v_BxJxSxV)
  return y.reshape(B, J, G, L, -1)


def _later(start, L, S):
  """Which keys stand behind the queries at start, start + 1, ..., (1, L, S)."""
  return ((start + jnp.arange(L))[:, None] < jnp.arange(S)[None, :])[None]


def _weighted(s, hidden, v):
  """softmax(s) v over the last axis of s, float32, but for what is hidden."""
  s = s + jnp.where(hidden, -1e30, 0.0)
  e = jnp.exp(s - jax.lax.stop_gradient(s.max(axis=-1, keepdims=True)))
  y = jnp.matmul(e.astype(v.dtype), v, preferred_element_type=jnp.float32)
  return (y / e.sum(axis=-1, keepdims=True)).astype(v.dtype)
