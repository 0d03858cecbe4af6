"""Linear maps as pure functions."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

# Uniform within sqrt(1 / I), as LoRA starts its A.
kaiming_uniform = jax.nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')


def dense(x: jax.Array, kernel_IxO: jax.Array, out_dtype: Any = None) -> jax.Array:
  """Y = x W, shapes (..., I) and (I, O) -> (..., O); float32 accumulation.

  The result has x's dtype unless `out_dtype` says otherwise (float32 for logits).
  """
  # Rows are flattened so that the gradient of W is one plain matrix product: on a CPU XLA
  # runs it about twice as fast as the same product over two contracted axes.
  y_TxO = _product(x.reshape(-1, x.shape[-1]), kernel_IxO, out_dtype or x.dtype)
  return y_TxO.reshape(*x.shape[:-1], kernel_IxO.shape[-1])


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _product(x_TxI: jax.Array, kernel_IxO: jax.Array, out_dtype: Any) -> jax.Array:
  return jnp.matmul(x_TxI, kernel_IxO, preferred_element_type=out_dtype)


def _product_backward(out_dtype: Any, saved: tuple, g_TxO: jax.Array) -> tuple:
  """The derivative's own formula; JAX's transposition would copy dW once more.

  The gradient of float32 logits is rounded to x's dtype first: otherwise both products
  would be float32 ones in a bf16 model.
  """
  x_TxI, kernel_IxO = saved
  g_TxO = g_TxO.astype(x_TxI.dtype)
  return jnp.matmul(g_TxO, kernel_IxO.T), jnp.matmul(x_TxI.T, g_TxO)


_product.defvjp(
  lambda x, k, out_dtype: (_product(x, k, out_dtype), (x, k)), _product_backward
)


def chain(x: jax.Array, kernels: tuple[jax.Array, ...]) -> jax.Array:
  """Y = x W1 W2 ..., cast to x's dtype and multiplied from the left.

  Two factors A (I, R) and B (R, O) are the low-rank map of LORO (ICLR 2025) and ELAS
  (arXiv 2605.03667), W = A B of rank R: no bias, no scaling and nothing in between.
  Costs 2 R (I + O) FLOPs a row, not 2 I O.
  """
  for kernel in kernels:
    x = dense(x, kernel.astype(x.dtype))
  return x


def svd_factors(w_IxO: jax.Array, rank: int) -> tuple[jax.Array, jax.Array, jax.Array]:
  """A = U sqrt(S), B = sqrt(S) V^T of the `rank` largest singular values, and what is left.

  A B is the best approximation of that rank, and A^T A = B B^T. (Spectral initialisation:
  Khodak et al., arXiv 2105.01029.)
  """
  u, s, vt = jnp.linalg.svd(w_IxO, full_matrices=False)
  root = jnp.sqrt(s[:rank])
  a, b = u[:, :rank] * root[None, :], root[:, None] * vt[:rank]
  return a, b, w_IxO - a @ b


def low_rank_silu(x: jax.Array, a_IxR: jax.Array, b_RxO: jax.Array) -> jax.Array:
  """Y = silu(x A) B, the unit of CoLA (arXiv 2502.10940).

  x A is named 'bottleneck' for remat policies that keep nothing else.
  """
  t = checkpoint_name(dense(x, a_IxR.astype(x.dtype)), 'bottleneck')
  return dense(jax.nn.silu(t), b_RxO.astype(x.dtype))


def low_rank_plus_dense(
  x: jax.Array, w_IxO: jax.Array, a_IxR: jax.Array, b_RxO: jax.Array, scale: float
) -> jax.Array:
  """Y = x W + scale (x A) B, where W is not trained (LoRA, arXiv 2106.09685)."""
  frozen = jax.lax.stop_gradient(w_IxO).astype(x.dtype)
  # Plain matmul: `dense` has a gradient of its own, which would form that of W as well.
  return jnp.matmul(x, frozen) + scale * chain(x, (a_IxR, b_RxO))


@functools.partial(jax.checkpoint, static_argnums=(5,))
def low_rank_plus_sparse(
  x: jax.Array,
  a_IxR: jax.Array,
  b_RxO: jax.Array,
  values_P: jax.Array,
  support_P: jax.Array,
  scale: float,
) -> jax.Array:
  """Y = x (scale A B + S) with P fixed entries in S (SLTrain, arXiv 2406.02214).

  `support_P` holds their flat indices in (I, O). W is formed for the product, as the
  authors do, and again in the backward pass rather than kept.
  """
  w_IxO = scale * jnp.matmul(a_IxR, b_RxO, preferred_element_type=jnp.float32)
  flat = (
    w_IxO.reshape(-1).at[support_P].add(values_P.astype(jnp.float32), unique_indices=True)
  )
  return dense(x, flat.reshape(w_IxO.shape).astype(x.dtype))


def low_rank_plus_columns(
  x: jax.Array,
  a_IxR: jax.Array,
  b_RxO: jax.Array,
  s_PxO: jax.Array,
  columns_P: jax.Array,
  gamma: float,
) -> jax.Array:
  """Y = gamma silu(x A) B + (1 - gamma) x[columns] S (LOST)."""
  sparse = dense(jnp.take(x, columns_P, axis=-1), s_PxO.astype(x.dtype))
  return gamma * low_rank_silu(x, a_IxR, b_RxO) + (1 - gamma) * sparse
