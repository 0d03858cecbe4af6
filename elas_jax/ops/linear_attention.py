"""Attention that is linear in its keys: a state of fixed size in place of all of them."""

import jax
import jax.numpy as jnp


def causal_linear_attention(
  q_BxLxHxK: jax.Array,
  k_BxLxHxK: jax.Array,
  v_BxLxHxV: jax.Array,
  state_BxHxKxV: jax.Array,
  chunk: int,
  segments_BxL: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
  """y_t = q_t^T S_t,  S_t = S_{t-1} + k_t v_t^T, in float32 (arXiv 2006.16236).

  In chunks of positions: within one the products q k^T below the diagonal, between them
  the state; all are matrix products. `state` is S before the first position. Segments are
  numbers that do not fall along a row; where the next one begins, S is zero anew.

  Returns:
    y (B, L, H, V), and S behind the last position.
  """
  B, L, H, K = q_BxLxHxK.shape
  C = min(chunk, L)
  pad = -L % C

  def chunks(x):  # (B, L, H, ...) -> (chunks, B, H, C, ...); what is filled up adds nothing
    x = jnp.pad(x.astype(jnp.float32), ((0, 0), (0, pad), (0, 0), (0, 0)))
    return x.reshape(B, -1, C, H, x.shape[-1]).transpose(1, 0, 3, 2, 4)

  causal_CxC = jnp.tril(jnp.ones((C, C), bool))
  if segments_BxL is None:
    segments_BxL = jnp.zeros((B, L), jnp.int32)
  # What is filled up belongs to the last segment, whose state stays.
  own = jnp.pad(segments_BxL, ((0, 0), (0, pad)), mode='edge')
  own = own.reshape(B, -1, C).transpose(1, 0, 2)  # (chunks, B, C)
  before = jnp.concatenate([own[:1, :, 0], own[:-1, :, -1]])  # the segment of the state

  def one(state_BxHxKxV, chunk):
    q, k, v, own_BxC, before_B = chunk
    same_BxCxC = own_BxC[:, :, None] == own_BxC[:, None, :]
    seen_BxCxC = (same_BxCxC & causal_CxC[None]).astype(jnp.float32)
    scores = jnp.einsum('bhck,bhsk->bhcs', q, k) * seen_BxCxC[:, None]
    y = jnp.einsum('bhcs,bhsv->bhcv', scores, v)
    goes_on_BxC = (own_BxC == before_B[:, None]).astype(jnp.float32)
    q = q * goes_on_BxC[:, None, :, None]
    y += jnp.einsum('bhck,bhkv->bhcv', q, state_BxHxKxV)
    k = k * seen_BxCxC[:, None, -1, :, None]  # what the last position sees
    state_BxHxKxV = state_BxHxKxV * goes_on_BxC[:, None, None, -1:]
    return state_BxHxKxV + jnp.einsum('bhck,bhcv->bhkv', k, v), y

  inputs = tuple(chunks(x) for x in (q_BxLxHxK, k_BxLxHxK, v_BxLxHxV))
  state_BxHxKxV, y = jax.lax.scan(one, state_BxHxKxV, (*inputs, own, before))
  y_BxLxHxV = y.transpose(1, 0, 3, 2, 4).reshape(B, L + pad, H, -1)[:, :L]
  return y_BxLxHxV, state_BxHxKxV


def full_linear_attention(
  q_BxLxHxK: jax.Array, k_BxLxHxK: jax.Array, v_BxLxHxV: jax.Array
) -> jax.Array:
  """y_t = q_t^T S, S = sum of all k_s v_s^T, in float32."""
  wide = lambda x: x.astype(jnp.float32)
  state = jnp.einsum('blhk,blhv->bhkv', wide(k_BxLxHxK), wide(v_BxLxHxV))
  return jnp.einsum('blhk,bhkv->blhv', wide(q_BxLxHxK), state)
