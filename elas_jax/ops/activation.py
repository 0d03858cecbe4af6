"""Feed-forward activations.

Both have a gradient of their own that keeps only their inputs for the backward pass.
Differentiating SwiGLU's formula directly keeps an F-wide intermediate more, which on a CPU
is time as well, since these are all reading and writing memory.
"""

import jax
import jax.numpy as jnp


@jax.custom_vjp
def squared_relu(h: jax.Array) -> jax.Array:
  """relu(h)^2 (Primer, arXiv 2109.08668). Saved for the backward pass: h."""
  positive = jnp.maximum(h, 0)
  return positive * positive


squared_relu.defvjp(
  lambda h: (squared_relu(h), h),
  lambda h, g: (2 * jnp.maximum(h, 0) * g,),
)


@jax.custom_vjp
def swiglu(gate: jax.Array, up: jax.Array) -> jax.Array:
  """silu(gate) * up (Shazeer, arXiv 2002.05202). Saved for the backward pass: both."""
  return gate * jax.nn.sigmoid(gate) * up


def _swiglu_backward(saved: tuple, g: jax.Array) -> tuple[jax.Array, jax.Array]:
  gate, up = saved
  s = jax.nn.sigmoid(gate)
  return g * up * s * (1 + gate * (1 - s)), g * gate * s


swiglu.defvjp(lambda gate, up: (swiglu(gate, up), (gate, up)), _swiglu_backward)
