"""Runs of drawn parameters, as after some training, and what a converter makes of them."""

import jax
import jax.numpy as jnp
import numpy as np

from elas_jax.config.checks import check
from elas_jax.run.conversion import check_variables
from elas_jax.run.state import abstract_variables
from tests.conformance.hosts import given


def drawn(config, seed=0, masked=0.0):
  """Variables of a config; of masks this share is zero, and of numbers none."""
  random = np.random.default_rng(seed)

  def draw(path, like):
    if like.dtype == jnp.bool_:
      return jnp.asarray(random.uniform(size=like.shape) >= masked)
    values = 0.25 * random.normal(size=like.shape) + (path[-1].key == 'scale')
    return jnp.asarray(values, like.dtype)

  return jax.tree_util.tree_map_with_path(draw, abstract_variables(config))


def converted(converter, config, variables):
  """(config, variables, lines said), checked as the command does."""
  said = []
  converter.check('converter', config)
  new_config, new = converter.convert(given(config, variables, said))
  check(new_config)
  check_variables(new_config, new, 'converter')
  return new_config, new, said


def at(tree, path):
  for name in path.split('/'):
    tree = tree[name]
  return tree


def outputs(config, variables, rows):
  return np.asarray(given(config, variables, []).outputs(config, variables, rows)[0])
