"""Checkpoints: which are kept, on which devices they fit, and what a failure leaves."""

import contextlib
import dataclasses
import errno
import json
import resource
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elas_jax.common.errors import UserError
from elas_jax.config.config import CheckpointConfig, to_json
from elas_jax.config.migrate import VERSION
from elas_jax.data.blocks import prepare
from elas_jax.data.pipeline import train_batches
from elas_jax.run.checkpoint import Checkpoints, load_json, load_variables, steps
from elas_jax.run.sharding import make_mesh
from elas_jax.run.state import abstract_state, create_state
from elas_jax.run.workdir import locked
from elas_jax.train import train
from tests.conftest import thinned

KEEP_ALL = CheckpointConfig(every=1, keep_latest=100, keep_best=0)


@pytest.fixture(scope='module')
def config(trained):
  return on_mesh(trained[0], data=1, fsdp=4)


@pytest.fixture(scope='module')
def state(config):
  """A state whose parameters and moments are split over four devices."""
  state = create_state(config, make_mesh(config))
  ones = jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree))(state.opt_state)
  return dataclasses.replace(state, opt_state=ones)


@pytest.fixture
def batches(config):
  return new_batches(config)


def new_batches(config):
  return train_batches(
    prepare(config.data.source.corpus(config.data)).train,
    batch_size=8,
    seed=0,
    process_index=0,
    process_count=1,
    read_threads=1,
    prefetch=2,
  )


def on_mesh(config, **sizes):
  return dataclasses.replace(config, mesh=dataclasses.replace(config.mesh, **sizes))


def at(state, step):
  return dataclasses.replace(state, step=jnp.int32(step))


def save(checkpoints, state, batches, config, step, loss=None):
  tree = json.loads(to_json(config))
  checkpoints.save(at(state, step), batches, tree, {'name': 'bytes'}, {}, loss)


def folders(workdir):
  return sorted(int(p.name) for p in (workdir / 'checkpoints').iterdir())


@pytest.fixture(scope='module')
def saved(config, state, tmp_path_factory):
  """A workdir with steps 3 and 4; those of 4 are doubled."""
  workdir, batches = tmp_path_factory.mktemp('saved'), new_batches(config)
  checkpoints = Checkpoints(workdir, KEEP_ALL)
  next(batches)
  save(checkpoints, state, batches, config, 3)
  next(batches)
  save(checkpoints, doubled(state), batches, config, 4)
  checkpoints.wait()
  checkpoints.close()
  return workdir


def doubled(state):
  twice = jax.jit(lambda tree: jax.tree.map(lambda x: 2 * x, tree))
  return dataclasses.replace(state, params=twice(state.params))


def assert_equal(found, expected):
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(found), expected)


def test_keeps_the_latest_and_the_best(config, state, batches, tmp_path):
  keep = CheckpointConfig(every=1, keep_latest=2, keep_best=1)
  checkpoints = Checkpoints(tmp_path, keep)
  for step, loss in enumerate([3.0, 1.0, None, 2.0, 2.5, None], 1):
    save(checkpoints, state, batches, config, step, loss)
  checkpoints.wait()
  assert folders(tmp_path) == [2, 5, 6]
  assert checkpoints.latest_step == 6
  checkpoints.close()
  # A run that continues knows the losses of those before it.
  checkpoints = Checkpoints(tmp_path, keep)
  save(checkpoints, state, batches, config, 7, 1.5)
  save(checkpoints, state, batches, config, 8, 0.5)
  checkpoints.wait()
  assert folders(tmp_path) == [7, 8]
  checkpoints.close()


def test_no_save_is_dropped_while_another_runs(config, state, batches, tmp_path):
  checkpoints = Checkpoints(tmp_path, KEEP_ALL)
  for step in range(1, 6):
    save(checkpoints, state, batches, config, step)
  checkpoints.wait()
  assert folders(tmp_path) == [1, 2, 3, 4, 5] == steps(tmp_path, 'workdir')
  checkpoints.close()


def test_save_holds_the_values_of_its_step(config, state, batches, tmp_path):
  """The loop hands the buffers to the next step while the save still runs."""
  step = jax.jit(
    lambda state: jax.tree.map(lambda x: x + 1, state),
    donate_argnums=0,
    out_shardings=jax.tree.map(lambda x: x.sharding, state),
  )
  state = step(jax.tree.map(jnp.copy, state))
  expected = jax.device_get(jax.tree.map(jnp.copy, state))
  checkpoints = Checkpoints(tmp_path, KEEP_ALL)
  number = int(state.step)
  checkpoints.save(state, batches, {'version': VERSION}, {}, {}, None)
  for _ in range(20):
    state = step(state)
  jax.block_until_ready(state)
  checkpoints.wait()
  abstract = abstract_state(config, make_mesh(config))
  assert_equal(checkpoints.restore(abstract, batches), expected)
  assert folders(tmp_path) == [number]
  checkpoints.close()


@pytest.mark.parametrize(
  'devices, sizes',
  thinned(
    [(1, {'fsdp': 1}), (4, {'fsdp': 2, 'tensor': 2}), (4, {'fsdp': 4})],
    (4, {'fsdp': 2, 'tensor': 2}),
  ),
)
def test_restores_on_other_devices(config, state, saved, devices, sizes):
  config = on_mesh(config, **sizes)
  mesh = make_mesh(config, jax.devices()[:devices])
  abstract = abstract_state(config, mesh)
  checkpoints, batches = Checkpoints(saved, KEEP_ALL), new_batches(config)
  restored = checkpoints.restore(abstract, batches)
  checkpoints.close()
  assert_equal(restored, jax.device_get(at(doubled(state), 4)))
  jax.tree.map(lambda x, y: x.sharding == y.sharding or pytest.fail(), restored, abstract)
  # The third batch comes next.
  expected = new_batches(config)
  for _ in range(2):
    next(expected)
  np.testing.assert_array_equal(next(batches)['tokens'], next(expected)['tokens'])


def test_what_a_killed_save_leaves_is_ignored_and_removed(
  config, state, saved, batches, tmp_path
):
  folder = tmp_path / 'checkpoints'
  checkpoints = Checkpoints(tmp_path, KEEP_ALL)
  save(checkpoints, state, batches, config, 1)
  checkpoints.wait()
  checkpoints.close()
  leftover = folder / '9.orbax-checkpoint-tmp'
  leftover.mkdir()
  (leftover / 'state').write_text('half')
  assert steps(tmp_path, 'workdir') == [1]
  assert leftover.exists()  # a reader removes nothing
  checkpoints = Checkpoints(tmp_path, KEEP_ALL)
  assert checkpoints.latest_step == 1
  save(checkpoints, state, batches, config, 2)
  checkpoints.wait()
  checkpoints.close()
  assert folders(tmp_path) == [1, 2]


def test_system_error_of_a_save_is_raised_and_leaves_the_others(
  config, state, batches, tmp_path
):
  checkpoints = Checkpoints(tmp_path, KEEP_ALL)
  save(checkpoints, state, batches, config, 1)
  checkpoints.wait()
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  try:
    resource.setrlimit(resource.RLIMIT_FSIZE, (8 << 10, hard))
    with pytest.raises(OSError, match='File too large') as caught:
      save(checkpoints, state, batches, config, 2)
      checkpoints.wait()
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
  assert caught.value.errno == errno.EFBIG
  checkpoints.close()
  assert steps(tmp_path, 'workdir') == [1]
  # Not 2 again: threads of the failed save may still be at work on it in this process,
  # which in a run has ended by now. They may also write into what is being removed.
  for _ in range(50):
    with contextlib.closing(Checkpoints(tmp_path, KEEP_ALL)) as checkpoints:
      try:
        save(checkpoints, state, batches, config, 3)
        checkpoints.wait()
        break
      except OSError as error:
        assert error.errno == errno.ENOTEMPTY
    time.sleep(0.1)
  assert steps(tmp_path, 'workdir') == [1, 3]


def test_load_variables_of_a_step(config, state, saved):
  abstract = abstract_state(config, make_mesh(config)).variables
  newest = load_variables(saved, abstract, None, 'restore')
  assert_equal(newest, jax.device_get(doubled(state).variables))
  assert_equal(
    load_variables(saved, abstract, 3, 'restore'), jax.device_get(state.variables)
  )
  with pytest.raises(UserError, match=r'step=2: .* has checkpoints of steps \[3, 4\]'):
    load_variables(saved, abstract, 2, 'restore')


def test_load_json(config, saved):
  assert load_json(saved, 'config', '--workdir') == json.loads(to_json(config))
  assert load_json(saved, 'vocabulary', '--workdir') == {'name': 'bytes'}


@pytest.mark.parametrize('make', [False, True])
def test_folder_without_checkpoints_is_named(tmp_path, make):
  if make:
    (tmp_path / 'run/checkpoints').mkdir(parents=True)
  for read in (
    lambda path: steps(path, 'restore'),
    lambda path: load_json(path, 'config', 'restore'),
    lambda path: load_variables(path, {}, None, 'restore'),
  ):
    with pytest.raises(UserError, match='restore=.*run.*: no checkpoint under'):
      read(tmp_path / 'run')
  assert (tmp_path / 'run').exists() == make


def test_folder_that_can_hold_none_ends_the_run_before_its_first_step(tmp_path):
  (tmp_path / 'file').mkdir()
  (tmp_path / 'file/checkpoints').write_text('')
  (tmp_path / 'link').mkdir()
  (tmp_path / 'link/checkpoints').symlink_to(tmp_path / 'gone')
  for name in ('file', 'link'):
    with pytest.raises(OSError, match=f'{name}/checkpoints'):
      Checkpoints(tmp_path / name, CheckpointConfig(every=4, keep_latest=1, keep_best=1))


def test_only_the_names_of_steps_are_steps(tmp_path):
  for name in ('4', '012', '\u0663', '8.damaged'):
    (tmp_path / 'checkpoints' / name).mkdir(parents=True)
  assert steps(tmp_path, '--workdir') == [4]


def test_two_processes_do_not_share_a_workdir(make_config, corpus, tmp_path):
  with locked(tmp_path / 'run'), pytest.raises(UserError, match='another process'):
    train(make_config(), tmp_path / 'run')
