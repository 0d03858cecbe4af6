"""Attention that is linear in its keys: a state of fixed size in place of all of them."""

import jax
import jax.numpy as jnp


def causal_linear_attention(
  q_BxLxHxK: jax.Array,
  k_BxLxHxK: jax.Array,
  v_BxLxHxV: jax.Array,
  state_BxHxKxV: jax.Array,
  chunk: int,
) -> tuple[jax.Array, jax.Array]:
  """y_t = q_t^T S_t,  S_t = S_{t-1} + k_t v_t^T, in float32 (arXiv 2006.16236).

  In chunks of positions: within one the products q k^T below the diagonal, between them
  the state; all are matrix products. `state` is S before the first position.

  Returns:
    y (B, L, H, V), and S behind the last position.
  """
  B, L, H, K = q_BxLxHxK.shape
  C = min(chunk, L)
  pad = -L % C

  def chunks(x):  # (B, L, H, ...) -> (chunks, B, H, C, ...); what is filled up adds nothing
    x = jnp.pad(x.astype(jnp.float32), ((0, 0), (0, pad), (0, 0), (0, 0)))
    return x.reshape(B, -1, C, H, x.shape[-1]).transpose(1, 0, 3, 2, 4)

  seen_CxC = jnp.tril(jnp.ones((C, C), jnp.float32))

  def one(state_BxHxKxV, qkv):
    q, k, v = qkv
    scores = jnp.einsum('bhck,bhsk->bhcs', q, k) * seen_CxC[None, None]
    y = jnp.einsum('bhcs,bhsv->bhcv', scores, v)
    y += jnp.einsum('bhck,bhkv->bhcv', q, state_BxHxKxV)
    return state_BxHxKxV + jnp.einsum('bhck,bhcv->bhkv', k, v), y

  inputs = tuple(chunks(x) for x in (q_BxLxHxK, k_BxLxHxK, v_BxLxHxV))
  state_BxHxKxV, y = jax.lax.scan(one, state_BxHxKxV, inputs)
  y_BxLxHxV = y.transpose(1, 0, 3, 2, 4).reshape(B, L + pad, H, -1)[:, :L]
  return y_BxLxHxV, state_BxHxKxV


def full_linear_attention(
  q_BxLxHxK: jax.Array, k_BxLxHxK: jax.Array, v_BxLxHxV: jax.Array
) -> jax.Array:
  """y_t = q_t^T S, S = sum of all k_s v_s^T, in float32."""
  wide = lambda x: x.astype(jnp.float32)
  state = jnp.einsum('blhk,blhv->bhkv', wide(k_BxLxHxK), wide(v_BxLxHxV))
  return jnp.einsum('blhk,bhkv->blhv', wide(q_BxLxHxK), state)
