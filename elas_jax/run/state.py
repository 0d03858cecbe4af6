"""The train state: everything of a run that the optimiser step changes."""

import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from elas_jax.config.config import Config
from elas_jax.run.optimizer import make_optimizer
from elas_jax.run.sharding import state_shardings
from elas_jax.systems.kinds import by_name
from elas_jax.systems.objectives import OBJECTIVES
from elas_jax.systems.objectives.common import State
from elas_jax.tasks import task_of
from elas_jax.tasks.task import KEPT


@flax.struct.dataclass
class TrainState:
  step: jax.Array  # optimiser steps done
  params: Any
  # What layers keep beside parameters, fixed supports and running scales; and under KEPT
  # what objectives do, in runs in which one does.
  buffers: Any
  opt_state: Any

  @property
  def variables(self) -> dict[str, Any]:
    """What the model is applied to."""
    buffers = {name: x for name, x in self.buffers.items() if name != KEPT}
    return {'params': self.params, 'buffers': buffers}

  @property
  def kept(self) -> dict[str, State]:
    """By the names of the objectives what they keep."""
    return self.buffers.get(KEPT, {})


def init_variables(config: Config) -> dict[str, Any]:
  """Fresh parameters and buffers, nested dicts, from the config's seed."""
  task = task_of(config)
  key = jax.random.key(config.seed)
  variables = task.module(config).init(key, task.inputs(config))
  return {'params': variables['params'], 'buffers': variables.get('buffers', {})}


@functools.cache
def abstract_variables(config: Config) -> dict[str, Any]:
  """Shapes and dtypes of the network's parameters and buffers; computes nothing."""
  return jax.eval_shape(lambda: init_variables(config))


def optimizer_of(config: Config) -> optax.GradientTransformation:
  return make_optimizer(config, abstract_variables(config)['params'])


def with_beside(config: Config, variables: dict[str, Any]) -> dict[str, Any]:
  """The network's variables, and what its task has beside them at step 0."""
  # Copies: a step takes the memory of each array that it is given.
  beside = jax.tree.map(jnp.copy, task_of(config).beside(variables))
  return {'params': variables['params'], 'buffers': variables['buffers'] | beside}


def state_from(config: Config, variables: dict[str, Any]) -> TrainState:
  """A state at step 0 with these parameters and buffers of the network."""
  opt_state = optimizer_of(config).init(variables['params'])
  variables = with_beside(config, variables)
  named = by_name(OBJECTIVES, config.train.objectives).items()
  kept = {name: state for name, one in named if (state := one.state())}
  buffers = with_kept(variables['buffers'], kept)
  return TrainState(jnp.zeros((), jnp.int32), variables['params'], buffers, opt_state)


def with_kept(buffers: dict[str, Any], kept: dict[str, State]) -> dict[str, Any]:
  """The buffers of a state: a network's, and what objectives keep, if some do."""
  return buffers | {KEPT: kept} if kept else buffers


def abstract_of_run(config: Config) -> dict[str, Any]:
  """As `abstract_variables`, of a checkpoint: with what its task has beside them."""
  return jax.eval_shape(lambda: with_beside(config, init_variables(config)))


@functools.cache
def abstract_state(config: Config, mesh: Mesh) -> TrainState:
  """The state as ShapeDtypeStructs that carry their shardings."""
  state = functools.partial(state_from, config)
  shapes = jax.eval_shape(state, abstract_variables(config))
  shardings = state_shardings(config, mesh, shapes)
  return jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings
  )


def create_state(config: Config, mesh: Mesh) -> TrainState:
  """A fresh state, made on its devices: no host ever holds all of a large model."""
  shardings = jax.tree.map(lambda x: x.sharding, abstract_state(config, mesh))
  create = lambda: state_from(config, init_variables(config))
  return jax.jit(create, out_shardings=shardings)()


def parameter_count(params: Any) -> int:
  return sum(leaf.size for leaf in jax.tree.leaves(params))
