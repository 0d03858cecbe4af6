"""Damaged checkpoints: what is damaged is said, nothing else is loaded, nothing lost."""

import contextlib
import errno
import json
import pathlib
import random
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import logging

from elas_jax import evaluate
from elas_jax.common.errors import UserError
from elas_jax.config.config import CheckpointConfig
from elas_jax.config.migrate import VERSION
from elas_jax.run.checkpoint import Checkpoints, load_json, load_variables, steps
from elas_jax.run.saved import Damaged, Saved, ocp
from elas_jax.run.sharding import make_mesh
from elas_jax.run.state import TrainState, create_state
from elas_jax.train import train
from tests.conftest import thinned
from tests.finished_runs import computed, drop_items

TODAY = {'version': VERSION}  # a config whose arrays lie as those of today
KEEP_ALL = CheckpointConfig(every=1, keep_latest=100, keep_best=0)


@pytest.fixture(autouse=True)
def as_a_command():
  """Orbax logs, which the commands switch off."""
  before = logging.get_verbosity()
  logging.set_verbosity(logging.FATAL)
  yield
  logging.set_verbosity(before)


class Position:
  """Where an iterator stands."""

  def __init__(self, number=0):
    self.state = {'next_index': number}

  def get_state(self):
    return self.state

  def set_state(self, state):
    self.state = state


def state_at(step):
  """A few arrays: some that are hard to compress, one that is not, one in one value."""
  numbers = np.random.default_rng(step)
  normal = lambda *shape: jnp.asarray(numbers.normal(size=shape), jnp.float32)
  params = {'head': normal(48, 40), 'scale': jnp.full((600,), step, jnp.bfloat16)}
  opt_state = {'mu': jax.tree.map(lambda x: 2 * x, params)}
  return TrainState(jnp.int32(step), params, {'support': jnp.arange(900)}, opt_state)


def save(workdir, steps, losses=(None, None), keep=KEEP_ALL):
  checkpoints = Checkpoints(workdir, keep)
  for step, loss in zip(steps, losses):
    items = TODAY | {'seed': step}, {'name': 'bytes'}, {'splits': {'train': step}}
    checkpoints.save(state_at(step), Position(step), *items, loss)
  checkpoints.wait()
  checkpoints.close()


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('whole')
  save(workdir, (3, 4))
  return workdir


@pytest.fixture
def workdir(whole, tmp_path):
  return shutil.copytree(whole, tmp_path / 'run')


def abstract(state=None):
  sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
    state_at(0) if state is None else state,
  )


def assert_equal(found, expected):
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(found), expected)


def newest_variables(workdir, like=None):
  return load_variables(workdir, abstract(like).variables, None, 'restore')


def array_files(step):
  return sorted(step.glob('state/ocdbt.process_0/d/*'))


def replace(path, old, new):
  path.write_text(path.read_text().replace(old, new))


def cut(path, size):
  path.write_bytes(path.read_bytes()[:size])


DAMAGES = {
  'arrays cut': (lambda step: cut(array_files(step)[0], 1000), 'state: .*'),
  'arrays missing': (lambda step: array_files(step)[0].unlink(), 'state: .*'),
  'index cut': (lambda step: cut(step / 'state/manifest.ocdbt', 20), 'state: .*'),
  'index missing': (lambda step: (step / 'state/manifest.ocdbt').unlink(), 'state: .*'),
  'names missing': (lambda step: (step / 'state/_METADATA').unlink(), 'state: .*'),
  'a name changed': (
    lambda step: replace(step / 'state/_METADATA', '"key": "opt_state"', '"key": "opt"'),
    "state: 'opt_state/.*' is not there",
  ),
  'state missing': (lambda step: shutil.rmtree(step / 'state'), 'state: missing'),
  'everything missing': (lambda step: [shutil.rmtree(step), step.mkdir()], '.*: missing'),
  'a file instead': (
    lambda step: [shutil.rmtree(step), step.write_text('')],
    'is no folder',
  ),
  'data cut': (lambda step: cut(step / 'data/data.json', 9), 'data: JSONDecodeError.*'),
  'data empty': (lambda step: cut(step / 'data/data.json', 0), 'data: JSONDecodeError.*'),
  'data binary': (
    lambda step: (step / 'data/data.json').write_bytes(b'\xf5\xf5'),
    'data: UnicodeDecodeError.*',
  ),
  'data missing': (lambda step: shutil.rmtree(step / 'data'), 'data: missing'),
  'data of another step': (
    lambda step: (step / 'data/data.json').write_text('{"next_index": 5}'),
    'data: the checksum differs',
  ),
  'config cut': (
    lambda step: cut(step / 'config/data.json', 1),
    'config: JSONDecodeError.*',
  ),
  'config missing': (lambda step: shutil.rmtree(step / 'config'), 'config: missing'),
  'vocabulary changed': (
    lambda step: (step / 'vocabulary/data.json').write_text('{"name": "other"}'),
    'vocabulary: the checksum differs',
  ),
  'record missing': (lambda step: shutil.rmtree(step / 'record'), 'record: missing'),
  'checksums cut': (
    lambda step: cut(step / 'checksums/data.json', 50),
    'checksums: JSONDecodeError.*',
  ),
  'checksums missing': (
    lambda step: shutil.rmtree(step / 'checksums'),
    'checksums: missing',
  ),
  'checksums changed': (
    lambda step: (step / 'checksums/data.json').write_text('[]'),
    'checksums: their own checksum differs',
  ),
}


SOME_DAMAGES = (
  'arrays cut',
  'index missing',
  'a name changed',
  'everything missing',
  'data cut',
  'data of another step',
  'checksums changed',
)


@pytest.mark.parametrize('name', thinned(DAMAGES, *SOME_DAMAGES))
def test_continues_from_the_one_before(workdir, name, capfd):
  damage, why = DAMAGES[name]
  folder = workdir / 'checkpoints'
  damage(folder / '4')
  checkpoints, position = Checkpoints(workdir, KEEP_ALL), Position()
  restored = checkpoints.restore(abstract(), position)
  assert_equal(restored, state_at(3))
  assert position.state == {'next_index': 3}
  # It is said, in two lines and nothing else, and kept under another name.
  said, kept = capfd.readouterr().err.splitlines()
  pattern = rf'step 4 in .*checkpoints is damaged \({why}\); taking step 3'
  assert re.fullmatch(pattern, said)
  assert kept == f'{folder / "4"} is kept as 4.damaged'
  assert (folder / '4.damaged').exists()
  assert steps(workdir, 'workdir') == [3]
  # The step can be saved again, and be damaged again.
  checkpoints.save(state_at(4), Position(4), TODAY, {}, {}, None)
  checkpoints.wait()
  checkpoints.close()
  assert_equal(
    load_variables(workdir, abstract().variables, None, ''), state_at(4).variables
  )
  damage(folder / '4')
  checkpoints = Checkpoints(workdir, KEEP_ALL)
  assert_equal(checkpoints.restore(abstract(), position), state_at(3))
  checkpoints.close()
  assert (folder / '4.damaged-2').exists()


@pytest.mark.parametrize('tries', thinned([8, 24], 8))
def test_no_flipped_bit_of_an_array_file_loads_silently(workdir, tries):
  step, expected = workdir / 'checkpoints/4', state_at(4)
  files = [path for path in (step / 'state').rglob('*') if path.is_file()]
  (largest,) = array_files(step)
  assert largest.stat().st_size > 10_000
  found, numbers = 0, random.Random(0)
  for path in files:
    content = path.read_bytes()
    for bit in numbers.sample(range(8 * len(content)), tries if path == largest else 2):
      changed = bytearray(content)
      changed[bit // 8] ^= 1 << (bit % 8)
      path.write_bytes(changed)
      try:
        # In most files a bit changes nothing that is read.
        assert_equal(Saved(step).state(abstract()), expected)
      except Damaged:
        found += path == largest
    path.write_bytes(content)
  assert_equal(Saved(step).state(abstract()), expected)
  assert found > 0.6 * tries


@pytest.mark.parametrize(
  'item', thinned(['config', 'vocabulary', 'data', 'record'], 'record')
)
def test_no_flipped_bit_of_json_loads_silently(workdir, item):
  step = workdir / 'checkpoints/4'
  expected, path = Saved(step).json(item), step / item / 'data.json'
  content = path.read_bytes()
  for bit in range(0, 8 * len(content), 7):
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << (bit % 8)
    path.write_bytes(changed)
    with contextlib.suppress(Damaged):
      assert Saved(step).json(item) == expected


def test_one_that_is_asked_for_is_not_every_one(workdir):
  folder = workdir / 'checkpoints'
  shutil.rmtree(folder / '4/data')
  with pytest.raises(UserError) as error:
    load_json(workdir, 'data', '--workdir', step=4)
  assert str(error.value) == (
    f"--workdir='{workdir}': {folder}: step 4 is damaged (data: missing); "
    'others there are [3]'
  )


def test_none_is_good(workdir, capfd):
  folder = workdir / 'checkpoints'
  for step in '34':
    shutil.rmtree(folder / step / 'data')
  checkpoints = Checkpoints(workdir, KEEP_ALL)
  with pytest.raises(
    UserError,
    match=rf'{workdir}: no checkpoint in {folder} can be read: step 4 is damaged '
    r'\(data: missing\); step 3 is damaged \(data: missing\)',
  ):
    checkpoints.restore(abstract(), Position())
  checkpoints.close()
  assert sorted(path.name for path in folder.iterdir()) == ['3', '4']
  assert capfd.readouterr().err == ''


def test_readers_take_the_one_before_and_change_nothing(workdir, capfd):
  shutil.rmtree(workdir / 'checkpoints/4/config')
  assert load_json(workdir, 'config', 'restore') == TODAY | {'seed': 3}
  assert 'step 4' in capfd.readouterr().err
  with pytest.raises(UserError, match=r'restore=.*step 4 is damaged \(config: missing\)'):
    load_json(workdir, 'config', 'restore', 4)
  cut(array_files(workdir / 'checkpoints/4')[0], 1000)
  assert_equal(newest_variables(workdir), state_at(3).variables)
  assert steps(workdir, 'workdir') == [3, 4]


def test_parameters_in_another_dtype_are_verified_as_they_were_saved(whole):
  wanted = jax.tree.map(
    lambda x: x.update(dtype=jnp.float16 if x.dtype == jnp.float32 else x.dtype),
    abstract().variables,
  )
  found = load_variables(whole, wanted, 4, 'restore')
  head = state_at(4).params['head']
  assert found['params']['head'].dtype == jnp.float16
  np.testing.assert_array_equal(found['params']['head'], head.astype(jnp.float16))


def test_checkpoints_without_checksums_open_and_it_is_said(workdir, capfd):
  step = workdir / 'checkpoints/4'
  drop_items(step, 'checksums')
  checkpoints, position = Checkpoints(workdir, KEEP_ALL), Position()
  assert_equal(checkpoints.restore(abstract(), position), state_at(4))
  checkpoints.close()
  assert position.state == {'next_index': 4}
  said = capfd.readouterr().err
  assert said == f'{step} was saved without checksums: not verified\n'
  # What their position may hold is all that can be checked.
  (step / 'data/data.json').write_text('{"nexu_index": 4}')
  checkpoints = Checkpoints(workdir, KEEP_ALL)
  assert_equal(checkpoints.restore(abstract(), position), state_at(3))
  checkpoints.close()


@pytest.mark.parametrize(
  'content',
  thinned(
    ['', '{"eval/lo', '{"eval/lost": 0.5}', '{"eval/loss": NaN}', '[]', b'\xf5'],
    '{"eval/lo',
    '{"eval/loss": NaN}',
  ),
)
def test_damaged_loss_costs_only_the_loss(tmp_path, content, capfd):
  save(tmp_path, (3, 4), losses=(1.0, 0.5))
  path = tmp_path / 'checkpoints/4/metrics/metrics'
  path.write_bytes(content if isinstance(content, bytes) else content.encode())
  assert_equal(
    load_variables(tmp_path, abstract().variables, None, ''), state_at(4).variables
  )
  keep = CheckpointConfig(every=1, keep_latest=1, keep_best=1)
  checkpoints = Checkpoints(tmp_path, keep)
  assert f'{path} is damaged' in capfd.readouterr().err
  assert_equal(checkpoints.restore(abstract(), Position()), state_at(4))
  checkpoints.save(state_at(5), Position(5), TODAY, {}, {}, None)
  checkpoints.wait()
  checkpoints.close()
  assert steps(tmp_path, 'workdir') == [3, 5]  # the best whose loss is known, the latest


@pytest.mark.parametrize(
  'error',
  [
    PermissionError(errno.EACCES, 'Permission denied'),
    ValueError("RESOURCE_EXHAUSTED: Error opening [os_error_code='24']"),
  ],
)
def test_what_is_no_damage_is_not_taken_for_it(workdir, error, monkeypatch):
  """A file that cannot be opened now may be good."""

  def fail(*_):
    raise KeyError('Failed to load') from error

  monkeypatch.setattr(ocp, 'load_checkpointables', fail)
  checkpoints = Checkpoints(workdir, KEEP_ALL)
  with pytest.raises(UserError, match='step 4 in .*(Permission denied|Too many open)'):
    checkpoints.restore(abstract(), Position())
  checkpoints.close()
  assert steps(workdir, 'workdir') == [3, 4]


def test_other_errors_keep_their_type(workdir, monkeypatch):
  def fail(*_):
    raise KeyError('Failed to load') from KeyboardInterrupt()

  monkeypatch.setattr(ocp, 'load_checkpointables', fail)
  with pytest.raises(KeyboardInterrupt):
    Saved(workdir / 'checkpoints/4')


def test_run_with_damage_ends_like_an_undisturbed_one(trained, tmp_path, capfd):
  config, undisturbed = trained
  workdir = pathlib.Path(shutil.copytree(undisturbed, tmp_path / 'run'))
  cut(array_files(workdir / 'checkpoints/8')[0], 5000)
  train(config, workdir)
  printed = capfd.readouterr()
  assert 'continuing after step 4\n' in printed.out
  assert 'step 8 in' in printed.err
  assert 'Traceback' not in printed.err
  assert computed(workdir) == computed(undisturbed)
  state = create_state(config, make_mesh(config))
  ours, theirs = (newest_variables(x, state) for x in (workdir, undisturbed))
  jax.tree.map(np.testing.assert_array_equal, ours, theirs)
  # Of the optimiser's state too.
  file = 'checkpoints/8/checksums/data.json'
  assert (workdir / file).read_text() == (undisturbed / file).read_text()


def test_evaluation_of_a_run_with_damage(trained, tmp_path, capfd):
  workdir = shutil.copytree(trained[1], tmp_path / 'run')
  cut(array_files(workdir / 'checkpoints/8')[0], 5000)
  evaluate.main([f'--workdir={workdir}'])
  printed = capfd.readouterr()
  assert 'taking step 4' in printed.err
  found = json.loads((workdir / 'evaluation.json').read_text())
  assert found['step'] == 4
  with pytest.raises(UserError, match='step 8 is damaged'):
    evaluate.main([f'--workdir={workdir}', '--step=8'])
  evaluate.main([f'--workdir={workdir}', '--step=4'])
  assert json.loads((workdir / 'evaluation.json').read_text()) == found
