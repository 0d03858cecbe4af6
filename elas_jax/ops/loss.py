"""Next-token loss."""

import jax
import jax.numpy as jnp


def cross_entropy_sums(
  logits_BxLxV: jax.Array, targets_BxL: jax.Array, weights_BxL: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Weighted sums over tokens of -log softmax(logits)[target] and of (log Z)^2.

  In float32. Sums, not means, so that batches, micro-batches and hosts with different
  numbers of real tokens add up; divide by the sum of the weights at the very end. The
  second sum is that of the z-loss (PaLM, arXiv 2204.02311).
  """
  logits_BxLxV = logits_BxLxV.astype(jnp.float32)
  log_z_BxL = jax.nn.logsumexp(logits_BxLxV, axis=-1)
  target_BxL = jnp.take_along_axis(logits_BxLxV, targets_BxL[..., None], axis=-1)[..., 0]
  nll = jnp.sum((log_z_BxL - target_BxL) * weights_BxL)
  return nll, jnp.sum(log_z_BxL * log_z_BxL * weights_BxL)
