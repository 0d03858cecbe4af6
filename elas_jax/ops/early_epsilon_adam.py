"""Adam as GaLore and LORO have it: its epsilon comes before the bias correction."""

from typing import Any

import jax
import jax.numpy as jnp
import optax


def scale_by_early_epsilon_adam(
  b1: float, b2: float, epsilon: float
) -> optax.GradientTransformation:
  """Adam's directions with the bias correction as a factor of the step.

    m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2
    d = sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + epsilon)

  for step t from 1: what optax.scale_by_adam gives with epsilon / sqrt(1 - b2^t). At the
  first step with b2 0.999 that is an epsilon of 32 times the size. So in the optimisers of
  GaLore (arXiv 2403.03507) and LORO (ICLR 2025), which have it from an older version of
  Transformers. The state is that of optax.scale_by_adam.
  """
  adam = optax.scale_by_adam(b1, b2)

  def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
    del params
    _, state = adam.update(grads, state)
    scale = jnp.sqrt(1 - b2**state.count) / (1 - b1**state.count)
    direction = lambda m, v: scale * m / (jnp.sqrt(v) + epsilon)
    return jax.tree.map(direction, state.mu, state.nu), state

  return optax.GradientTransformation(adam.init, update)
