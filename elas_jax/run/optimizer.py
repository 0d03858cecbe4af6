"""The optimiser of a run, from its config: an optax chain in float32."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import optax

from elas_jax.common.paths import path_name
from elas_jax.config.config import Config
from elas_jax.models import layout
from elas_jax.models.decoder import EMBEDDINGS
from elas_jax.systems.kinds import Training, about


def learning_rate(config: Config) -> optax.Schedule:
  """Step from 0 -> learning rate."""
  return config.schedule.build(config.optimizer.learning_rate, config.train.steps)


def make_optimizer(config: Config, params: Any) -> optax.GradientTransformation:
  """Clipping by the global norm, then the optimiser that config.optimizer is.

  The kind of the linear maps may put transformations of its own around it (the frozen
  kernels of lora, the small rates of quadratic terms). `params` gives paths and shapes; its
  values are not used.
  """
  c, linear = config.optimizer, config.model.linear
  training = Training(
    schedule=learning_rate(config),
    params=params,
    decay=lambda weight_decay: _decay(config, params, weight_decay),
    extra=tuple(about(linear, 'extra', default=())),
  )
  inner = _with_embedding_rate(config, c.build(training))
  inner = about(linear, 'around_steps', inner, config.seed, default=inner)
  clip = [optax.clip_by_global_norm(c.clip_norm)] if c.clip_norm else []
  inner = optax.chain(*clip, inner)
  inner = about(linear, 'around_clipping', inner, default=inner)
  return in_float32(inner)


def _with_embedding_rate(
  config: Config, inner: optax.GradientTransformation
) -> optax.GradientTransformation:
  """Steps of embedding and head by optimizer.embedding_rate in place of learning_rate.

  All optimisers step by the learning rate times something there, so that the ratio of the
  two is all; none of them does anything else with these parameters.
  """
  c = config.optimizer
  if not c.embedding_rate:
    return inner
  ratio = c.embedding_rate / c.learning_rate

  def scaled(path, update):
    return update * ratio if path_name(path) in EMBEDDINGS else update

  scale = optax.stateless(
    lambda updates, _: jax.tree_util.tree_map_with_path(scaled, updates)
  )
  return optax.chain(inner, scale)


def decay_factors(config: Config, params: Any) -> Any:
  """The factor of weight decay for each parameter, in the tree of the parameters.

  That of the first of optimizer.decay_rules that finds its path; without one, 0 for what
  the kinds leave alone (norms, biases) and 1 for all others.
  """
  alone = layout.no_decay(config.model)

  def factor(path, _):
    name = path_name(path)
    for regex, value in config.optimizer.decay_rules:
      if re.search(regex, name):
        return value
    return 0.0 if name in alone else 1.0

  return jax.tree_util.tree_map_with_path(factor, params)


def _decay(
  config: Config, params: Any, weight_decay: float
) -> list[optax.GradientTransformation]:
  """Decoupled weight decay, one transformation for each factor."""
  factors = decay_factors(config, params)
  return [
    optax.add_decayed_weights(
      factor * weight_decay, jax.tree.map(lambda f, factor=factor: f == factor, factors)
    )
    for factor in sorted(set(jax.tree.leaves(factors)))
    if factor * weight_decay
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
