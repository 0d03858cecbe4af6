"""Linear maps as the tests make them: small, on their own, with what surrounds them."""

import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from elas_jax.config.config import TRAITS
from elas_jax.systems.kinds import Parts

I, O, R = 24, 20, 4


def normal(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def parts_of(kind, **fields):
  return Parts(**{'width': I, 'hidden': O, 'linear': kind, 'norm': None} | fields)


def layer_of(kind, features=O, **fields):
  return kind.make(features, parts_of(kind, **fields), name=None)


def start(layer: nn.Module, x) -> dict:
  return jax.jit(layer.init)(jax.random.key(1), x)


def shapes_of(layer: nn.Module, x) -> dict:
  return jax.eval_shape(layer.init, jax.random.key(0), x)


def randomised(variables: dict) -> dict:
  """Parameters that are nowhere zero, as after some training."""
  random = np.random.default_rng(1)
  draw = lambda p: jnp.asarray(random.normal(size=p.shape), p.dtype)
  return variables | {'params': jax.tree.map(draw, variables['params'])}


def wide(tree):
  return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


def config_of(task='language', learning_rate=1e-3, width=I, hidden=O, **widths):
  """What a check looks at; `widths` are the inputs of maps."""
  model = types.SimpleNamespace(
    stack=None,
    width=width,
    widths={'model.width': width, 'model.feed_forward_width': hidden},
    input_widths=widths,
  )
  optimizer = types.SimpleNamespace(learning_rate=learning_rate)
  return types.SimpleNamespace(
    task=task, traits=TRAITS[task], model=model, optimizer=optimizer
  )
