"""S-KAN (arXiv 2408.08338): a weighted pool of families, narrowed to its winner."""

import jax
import jax.numpy as jnp

PHASES = ('full', 'selective', 'pruned')


def selection_weights(theta: jax.Array, phase: str, top_k: int) -> jax.Array:
  """Softmax over the pool, axis 0, among the M / top_k / 1 members of largest theta.

  The others weigh nothing, and their theta gets no gradient; on ties the earlier member
  is kept. `theta` is (M,) for a layer or (M, O) with a choice for each node.
  """
  kept = {'full': theta.shape[0], 'selective': top_k, 'pruned': 1}[phase]
  theta = theta.astype(jnp.float32)
  place = jnp.argsort(jnp.argsort(-theta, axis=0), axis=0)
  return jax.nn.softmax(theta, axis=0, where=place < kept)


def select(outputs: list[jax.Array], weights: jax.Array) -> jax.Array:
  """Sum over m of weights_m y_m; M of (..., O) and (M,) or (M, O) -> (..., O), float32.

  Members of weight 0 do not count even where they are not finite.
  """
  shape = (1,) * (outputs[0].ndim - 1) + (-1,)
  weights = [w.reshape(shape) for w in weights]
  safe = lambda w, y: jnp.where(w != 0, y.astype(jnp.float32), 0)
  return sum(w * safe(w, y) for w, y in zip(weights, outputs))
