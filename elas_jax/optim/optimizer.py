"""The optimiser of a run, from its config: an optax chain in float32."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from elas_jax.common.paths import match
from elas_jax.config.config import Config, OptimizerConfig
from elas_jax.ops.linear import kaiming_uniform
from elas_jax.optim.galore import scale_by_galore
from elas_jax.optim.loro import loro
from elas_jax.optim.relinear import shrink_gradients, shrink_weights
from elas_jax.optim.relora import relora, train_factors
from elas_jax.optim.schedules import SCHEDULES


def make_optimizer(config: Config, params: Any) -> optax.GradientTransformation:
  """Clipping by the global norm, then the optimiser of config.optimizer.name.

    adamw   m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2
            p -= lr(step) (m^ / (sqrt(v^) + epsilon) + weight_decay factor(path) p)
            (arXiv 1711.05101)
    sgd     m = b1 m + g;  p -= lr(step) m, with weight decay added to g
    galore  the same with projected moments for the kernels of linear maps: galore.py
    loro    LORO on factor pairs, Adam on the rest: loro.py

  galore and loro add epsilon before Adam's bias correction, as published: adam.py

  The frozen kernels of lora are left alone, and with merge_every they take up their
  factors: relora.py. `params` gives the paths; its values are not used.
  """
  c = config.optimizer
  schedule = SCHEDULES[c.schedule](c, config.train.steps)
  if c.name == 'loro':
    inner = loro(
      schedule,
      b1=c.b1,
      b2=c.b2,
      epsilon=c.epsilon,
      exact_every=c.exact_every,
      lazy_scale=c.lazy_scale,
    )
  else:
    steps = [_directions(c, params), *_decay(c, params)]
    if c.name == 'sgd':
      steps.reverse()  # its decay is that of the loss
    if c.relinear == 'weights':
      steps.append(shrink_weights(alpha_g=c.relinear_g, alpha_b=c.relinear_b))
    inner = optax.chain(*steps, optax.scale_by_learning_rate(schedule))
  if c.merge_every:
    inner = relora(
      inner,
      every=c.merge_every,
      scale=config.model.alpha / config.model.rank,
      seed=config.seed,
      init=kaiming_uniform,
    )
  elif config.task == 'language' and config.model.linear == 'lora':
    inner = train_factors(inner)
  clip = [optax.clip_by_global_norm(c.clip_norm)] if c.clip_norm else []
  inner = optax.chain(*clip, inner)
  if c.relinear == 'gradients':
    inner = shrink_gradients(inner, gamma_g=c.relinear_g, gamma_b=c.relinear_b)
  return in_float32(inner)


def _directions(c: OptimizerConfig, params: Any) -> optax.GradientTransformation:
  if c.name == 'adamw':
    return optax.scale_by_adam(c.b1, c.b2, c.epsilon)
  if c.name == 'sgd':
    return optax.trace(c.b1)
  kernels = match(params, (('/kernel$', True), ('', False)), 'galore')
  return scale_by_galore(
    b1=c.b1,
    b2=c.b2,
    epsilon=c.epsilon,
    rank=c.projection_rank,
    every=c.projection_every,
    scale=c.projection_scale,
    projected=kernels,
  )


def _decay(c: OptimizerConfig, params: Any) -> list[optax.GradientTransformation]:
  """Decoupled weight decay, one transformation for each factor of decay_rules."""
  factors = match(params, c.decay_rules, 'optimizer.decay_rules')
  return [
    optax.add_decayed_weights(
      factor * c.weight_decay, jax.tree.map(lambda f, factor=factor: f == factor, factors)
    )
    for factor in sorted(set(jax.tree.leaves(factors)))
    if factor * c.weight_decay
  ]


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
