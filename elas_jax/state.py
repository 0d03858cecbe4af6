"""The train state: everything of a run that the optimiser step changes."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from elas_jax.config import Config
from elas_jax.models.decoder import Decoder
from elas_jax.optim.optimizer import make_optimizer
from elas_jax.sharding import state_shardings


@flax.struct.dataclass
class TrainState:
  step: jax.Array  # optimiser steps done
  params: Any
  opt_state: Any


def init_params(config: Config) -> Any:
  """Fresh parameters, a nested dict, from the config's seed."""
  model = Decoder(config.model)
  tokens_BxL = jnp.zeros((1, min(8, config.data.sequence_length)), jnp.int32)
  return model.init(jax.random.key(config.seed), tokens_BxL)['params']


def abstract_params(config: Config) -> Any:
  """Shapes and dtypes of the parameters; computes nothing."""
  return jax.eval_shape(lambda: init_params(config))


def optimizer_of(config: Config) -> optax.GradientTransformation:
  return make_optimizer(config.optimizer, config.train.steps, abstract_params(config))


def state_from(config: Config, params: Any) -> TrainState:
  """A state at step 0 with these parameters."""
  opt_state = optimizer_of(config).init(params)
  return TrainState(step=jnp.zeros((), jnp.int32), params=params, opt_state=opt_state)


def abstract_state(config: Config, mesh: Mesh) -> TrainState:
  """The state as ShapeDtypeStructs that carry their shardings."""
  shapes = jax.eval_shape(lambda: state_from(config, init_params(config)))
  shardings = state_shardings(mesh, shapes)
  return jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings
  )


def create_state(config: Config, mesh: Mesh) -> TrainState:
  """A fresh state, made on its devices: no host ever holds all of a large model."""
  shardings = jax.tree.map(lambda x: x.sharding, abstract_state(config, mesh))
  create = lambda: state_from(config, init_params(config))
  return jax.jit(create, out_shardings=shardings)()


def parameter_count(params: Any) -> int:
  return sum(leaf.size for leaf in jax.tree.leaves(params))
