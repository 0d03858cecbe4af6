"""The optimiser of a run, from its config: an optax chain in float32."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from elas_jax.config import OptimizerConfig
from elas_jax.optim.groups import match
from elas_jax.optim.schedules import SCHEDULES


def make_optimizer(
  config: OptimizerConfig, steps: int, params: Any
) -> optax.GradientTransformation:
  """AdamW with clipping by the global norm (arXiv 1711.05101).

    m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2
    p -= lr(step) (m^ / (sqrt(v^) + epsilon) + weight_decay factor(path) p)

  `params` gives the paths that decay_rules must cover; its values are not used.
  """
  chain = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
  chain.append(optax.scale_by_adam(config.b1, config.b2, config.epsilon))
  factors = match(params, config.decay_rules, 'optimizer.decay_rules')
  for factor in sorted(set(jax.tree.leaves(factors))):
    if factor * config.weight_decay:
      mask = jax.tree.map(lambda f, factor=factor: f == factor, factors)
      chain.append(optax.add_decayed_weights(factor * config.weight_decay, mask))
  schedule = SCHEDULES[config.schedule](config, steps)
  chain.append(optax.scale_by_learning_rate(schedule))
  return in_float32(optax.chain(*chain))


def in_float32(inner: optax.GradientTransformation) -> optax.GradientTransformation:
  """Runs `inner` on float32 copies of gradients and parameters, whatever their dtype.

  Moments and updates are float32; `apply_updates` adds in float32 as well.
  """
  wide = lambda tree: jax.tree.map(lambda x: x.astype(jnp.float32), tree)

  def init(params):
    return inner.init(wide(params))

  def update(grads, state, params):
    return inner.update(wide(grads), state, wide(params))

  return optax.GradientTransformation(init, update)


def apply_updates(params: Any, updates: Any) -> Any:
  """Params + updates, added in float32 and rounded once to the parameters' dtype."""
  add = lambda p, u: (p.astype(jnp.float32) + u).astype(p.dtype)
  return jax.tree.map(add, params, updates)
