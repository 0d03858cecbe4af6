"""Linear maps as pure functions."""

import jax
import jax.numpy as jnp


def dense(x: jax.Array, kernel_IxO: jax.Array) -> jax.Array:
  """Y = x W, shapes (..., I) and (I, O) -> (..., O), in x's dtype; float32 accumulation.

  Rows are flattened first: the gradient of W is then one plain matrix product, which XLA
  runs about twice as fast on a CPU as the same product over two contracted axes.
  """
  y_TxO = jnp.matmul(x.reshape(-1, x.shape[-1]), kernel_IxO)
  return y_TxO.reshape(*x.shape[:-1], kernel_IxO.shape[-1])


@jax.custom_vjp
def dense_to_float32(x: jax.Array, kernel_IxO: jax.Array) -> jax.Array:
  """As `dense`, with the float32 sums as they are: for logits.

  The gradient is rounded to x's dtype before it is multiplied; otherwise the two products
  of the backward pass of a bf16 model would be float32 ones.
  """
  x_TxI = x.reshape(-1, x.shape[-1])
  y_TxO = jnp.matmul(x_TxI, kernel_IxO, preferred_element_type=jnp.float32)
  return y_TxO.reshape(*x.shape[:-1], kernel_IxO.shape[-1])


def _dense_to_float32_backward(saved: tuple, g: jax.Array) -> tuple[jax.Array, jax.Array]:
  x, kernel_IxO = saved
  _, vjp = jax.vjp(dense, x, kernel_IxO)
  return vjp(g.astype(x.dtype))


dense_to_float32.defvjp(
  lambda x, kernel_IxO: (dense_to_float32(x, kernel_IxO), (x, kernel_IxO)),
  _dense_to_float32_backward,
)


def low_rank(x: jax.Array, a_IxR: jax.Array, b_RxO: jax.Array) -> jax.Array:
  """Y = (x A) B^T with the factors A (I, R) and B^T (R, O): W = B A^T has rank R.

  The factored form of LORO (ICLR 2025) and ELAS (arXiv 2605.03667): no bias, no
  scaling and nothing between the factors. Costs 2 R (I + O) FLOPs a row, not 2 I O.
  """
  return dense(dense(x, a_IxR), b_RxO)
