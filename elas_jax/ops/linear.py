"""Linear maps as pure functions."""

from typing import Any

import jax
import jax.numpy as jnp


def dense(x: jax.Array, kernel_IxO: jax.Array, out_dtype: Any = None) -> jax.Array:
  """Y = x W, shapes (..., I) and (I, O) -> (..., O); float32 accumulation.

  The result has x's dtype unless `out_dtype` says otherwise. Rows are flattened first:
  the gradient of W is then one plain matrix product, which XLA runs about twice as fast
  on a CPU as the same product over two contracted axes.
  """
  x_TxI = x.reshape(-1, x.shape[-1])
  y_TxO = jnp.matmul(x_TxI, kernel_IxO, preferred_element_type=out_dtype or x.dtype)
  return y_TxO.reshape(*x.shape[:-1], kernel_IxO.shape[-1])


def low_rank(x: jax.Array, a_IxR: jax.Array, b_RxO: jax.Array) -> jax.Array:
  """Y = (x A) B^T with the factors A (I, R) and B^T (R, O): W = B A^T has rank R.

  The factored form of LORO (ICLR 2025) and ELAS (arXiv 2605.03667): no bias, no
  scaling and nothing between the factors. Costs 2 R (I + O) FLOPs a row, not 2 I O.
  """
  return dense(dense(x, a_IxR), b_RxO)
