"""Small classifiers and regressors for the tests: configs, and losses of a few steps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from configs.functions import SHAPES
from elas_jax.config.cli import load_config
from elas_jax.config.parsing import parse
from elas_jax.run.sharding import make_mesh
from elas_jax.run.state import create_state
from elas_jax.run.step import jit_train_step
from elas_jax.tasks import task_of


def config_of(file: str, argument: str, **overrides):
  flags = [f'--config.{name}={value}' for name, value in overrides.items()]
  return parse(load_config(f'configs/{file}.py:{argument}', flags))


tiny = functools.partial(
  config_of,
  **{
    'model.width': 8,
    'model.depth': 1,
    'data.batch_size': 8,
    'eval.batch_size': 64,
    'eval.units': 64,
    'train.steps': 20,
    'train.log_every': 5,
    'train.compilation_cache': '',
    'mesh.data': -1,
  },
)


def losses(config, steps=20, devices=1, rows=None):
  """Of steps on one batch, of the task's own rows."""
  mesh, task = make_mesh(config, jax.devices()[:devices]), task_of(config)
  if rows is None:
    rows = task.prepare(config).train.read(range(config.data.batch_size))
  state, step, found = create_state(config, mesh), jit_train_step(config, mesh), []
  with jax.set_mesh(mesh):
    for _ in range(steps):
      state, metrics = step(state, jax.tree.map(jnp.asarray, rows))
      found.append(float(metrics['loss'] / metrics['count']))
  return found


def drawn_rows(config):
  """Of the config's shapes: most sets are on no machine before someone prepares them."""
  generator = np.random.default_rng(0)

  def draw(name, array):
    if name == 'valid':
      return np.ones(array.shape, np.int32)
    if array.dtype == np.int32:
      return generator.integers(0, config.model.outputs, array.shape, np.int32)
    return generator.uniform(-1, 1, array.shape).astype(np.float32)

  rows = task_of(config).rows(config, config.data.batch_size)
  return {name: draw(name, array) for name, array in rows.items()}


def trained(file, argument, own_rows=True):
  """20 steps on one batch lower its loss."""
  # So few steps hardly move the two classes of a shape at the rate of the others.
  rate = 0.05 if argument.partition(',')[0] in SHAPES else 0.01
  flags = {'optimizer.learning_rate': rate, 'schedule.warmup_steps': 1}
  config = tiny(file, argument, **flags)
  found = losses(config, rows=None if own_rows else drawn_rows(config))
  assert np.isfinite(found).all()
  assert min(found[-3:]) < 0.95 * found[0]
