"""The phases of S-KAN as one run after another: each starts from the one before."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elas_jax.config.cli import load_config
from elas_jax.config.parsing import parse
from elas_jax.ops.kan.selection import PHASES
from elas_jax.run.checkpoint import Checkpoints
from elas_jax.run.sharding import make_mesh
from elas_jax.run.workdir import open_run
from elas_jax.tasks import task_of
from elas_jax.train import starting_state, train

pytestmark = pytest.mark.conformance
FLAGS = {
  'model.width': 3,
  'model.depth': 1,
  'model.linear.pool': 'fast,chebyshev,skan',
  'data.source.examples': 300,
  'data.batch_size': 16,
  'eval.batch_size': 64,
  'optimizer.learning_rate': 0.02,
  'train.steps': 20,
  'train.compilation_cache': '',
  'mesh.fsdp': 4,
}


def config_of(**overrides):
  flags = [f'--config.{name}={value}' for name, value in (FLAGS | overrides).items()]
  return parse(load_config('configs/functions.py:exp_sin_square,s_kan', flags))


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  """Of each phase: its run, and the parameters that it started from."""
  folder, made, before = tmp_path_factory.mktemp('runs'), [], ''
  for phase in PHASES:
    config = config_of(**{'model.linear.phase': phase, 'restore': before})
    with contextlib.closing(Checkpoints(folder / 'none', config.checkpoint)) as none:
      start = starting_state(config, make_mesh(config), none, None)
    train(config, folder / phase)
    before = str(folder / phase)
    made.append((open_run(before, None, {'eval.batch_size': 4}), start.params))
  return made


def test_each_phase_starts_from_the_one_before(runs):
  assert [run.config.model.linear.phase for run, _ in runs] == list(PHASES)
  for (run, _), (_, start) in zip(runs, runs[1:]):
    jax.tree.map(np.testing.assert_array_equal, run.variables['params'], start)


def changed(before, after):
  """The families of a layer of which a parameter is another."""
  same = jax.tree.map(np.array_equal, before, after)
  return {name for name in same if not jax.tree.all(same[name])} - {'theta'}


def test_each_phase_trains_what_it_keeps(runs):
  """At its start the largest by theta; places may change between those that train."""
  for (run, start), kept in zip(runs, (3, 2, 1)):
    pool, params = (
      run.config.model.linear.pool.split(','),
      run.variables['params']['network'],
    )
    for layer, before in start['network'].items():
      best = np.argsort(-np.asarray(before['theta']), kind='stable')[:kept]
      found = changed(before, params[layer])
      assert found >= {pool[number] for number in best}
      assert len(found) == kept or kept == 2


def test_the_pruned_network_is_its_winners_alone(runs):
  run, _ = runs[-1]
  members, params = run.config.model.linear.members(), run.variables['params']['network']
  x = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (50, 2)), jnp.float32)
  alone = x
  for layer, features in (('layer_0', 3), ('head', 1)):
    theta = np.asarray(params[layer]['theta'])
    assert len(set(theta)) == 3  # no tie decides
    winner = list(members)[theta.argmax()]
    family = members[winner].layer(features, run.config.model.parts, layer)
    alone = jax.jit(family.apply)({'params': params[layer][winner]}, alone)
  whole = jax.jit(task_of(run.config).module(run.config).apply)(run.variables, x)
  assert np.ptp(whole) > 0.1
  np.testing.assert_allclose(whole, alone, rtol=1e-6)
