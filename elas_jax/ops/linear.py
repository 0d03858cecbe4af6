"""Linear maps as pure functions."""

import functools
from typing import Any

import jax
import jax.numpy as jnp


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


def low_rank(x: jax.Array, a_IxR: jax.Array, b_RxO: jax.Array) -> jax.Array:
  """Y = (x A) B^T with the factors A (I, R) and B^T (R, O): W = B A^T has rank R.

  The factored form of LORO (ICLR 2025) and ELAS (arXiv 2605.03667): no bias, no
  scaling and nothing between the factors. Costs 2 R (I + O) FLOPs a row, not 2 I O.
  """
  return dense(dense(x, a_IxR), b_RxO)
