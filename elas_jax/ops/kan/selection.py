"""S-KAN (arXiv 2408.08338): a weighted pool of families, narrowed to its winner."""

import jax
import jax.numpy as jnp

PHASES = ('full', 'top_k', 'pruned')


def selection_weights(theta: jax.Array, phase: str, top_k: int) -> jax.Array:
  """Softmax over the pool, axis 0, among the M / top_k / 1 members of largest theta.

  The others weigh nothing, and their theta gets no gradient; on ties the earlier member
  is kept. `theta` is (M,) for a layer or (M, O) with a choice for each node.
  """
  kept = {'full': theta.shape[0], 'top_k': top_k, 'pruned': 1}[phase]
  theta = theta.astype(jnp.float32)
  place = jnp.argsort(jnp.argsort(-theta, axis=0), axis=0)
  return jax.nn.softmax(theta, axis=0, where=place < kept)


def select(outputs: list[jax.Array], weights: jax.Array) -> jax.Array:
  """Sum over m of weights_m y_m; M of (..., O) and (M,) or (M, O) -> (..., O), float32."""
  shape = (1,) * (outputs[0].ndim - 1) + (-1,)
  parts = (w.reshape(shape) * y.astype(jnp.float32) for w, y in zip(weights, outputs))
  return sum(parts)
