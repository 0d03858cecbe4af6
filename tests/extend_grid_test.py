"""New knots of a trained B-spline KAN, by the command and on from its result."""

import dataclasses
import functools
import shutil

import jax
import numpy as np
import pytest

from elas_jax import extend_grid
from elas_jax.common.errors import UserError
from elas_jax.config.cli import load_config
from elas_jax.config.migrate import VERSION
from elas_jax.config.parsing import parse
from elas_jax.data import functions
from elas_jax.ops.kan.bspline import uniform_knots
from elas_jax.run.checkpoint import load_json
from elas_jax.run.continuation import load_past
from elas_jax.run.metrics import read_metrics
from elas_jax.run.state import abstract_variables
from elas_jax.run.workdir import open_run
from elas_jax.train import train
from tests.conftest import ROOT

FLAGS = {
  'model.width': 3,
  'model.depth': 1,
  'data.source.examples': 300,
  'data.batch_size': 16,
  'eval.batch_size': 64,
  'optimizer.learning_rate': 0.01,
  'train.steps': 30,
  'train.log_every': 1,
  'train.compilation_cache': '',
  'mesh.fsdp': 4,
}


def config_of(model='bspline', **overrides):
  flags = [f'--config.{name}={value}' for name, value in (FLAGS | overrides).items()]
  return parse(load_config(f'configs/functions.py:product,{model}', flags))


def command(workdir, output, *options):
  extend_grid.main([f'--workdir={workdir}', f'--output={output}', *options])


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """With runs: `fit`; `finer`, its grid of 5 made one of 10; `moved`."""
  made = tmp_path_factory.mktemp('runs')
  train(config_of(), made / 'fit')
  command(made / 'fit', made / 'finer', '--grid=10')
  command(made / 'fit', made / 'moved')
  return made


@pytest.fixture(scope='module')
def look(folder):
  """Of a run: config, variables, outputs and layers' inputs on rows of the train split."""

  @functools.cache
  def at(name):
    run = open_run(folder / name, None, {'eval.batch_size': 4})
    x = run.prepared().train.read(range(240))['inputs']
    return run.config, run.variables, *extend_grid.outputs(run.config, run.variables, x)

  return at


def knots(variables):
  return {
    path: np.asarray(x) for path, x in jax.tree.leaves_with_path(variables['buffers'])
  }


def first_loss(folder, **overrides):
  config = config_of(**{'train.steps': 1, 'restore': str(folder)} | overrides)
  train(config, folder.with_name(f'from_{folder.name}'))
  return read_metrics(folder.with_name(f'from_{folder.name}'))[1][0]['train/loss']


def test_a_finer_grid_keeps_the_outputs(look):
  """Inside the old range a curve on 5 intervals is one on 10.

  What is left is float32: 2^-24 = 6e-8, times the condition of a least-squares fit of
  cubic splines, some tens, times coefficients and sums over inputs of order one.
  """
  (_, _, old, inputs), (_, _, new, _) = look('fit'), look('finer')
  assert all(np.abs(x).max() <= 1 for x in inputs.values())
  assert np.ptp(old) > 0.1
  np.testing.assert_allclose(new, old, rtol=0, atol=1e-5)


def test_a_finer_grid_is_that_of_a_fresh_model(look):
  config, variables, _, inputs = look('finer')
  assert config.model.linear.grid == 10
  shapes = functools.partial(jax.tree.map, lambda x: (x.shape, x.dtype))
  assert shapes(variables) == shapes(
    abstract_variables(config_of(**{'model.linear.grid': 10}))
  )
  assert list(inputs) == ['network/layer_0', 'network/head']
  coarse, fine = (knots(look(name)[1]).values() for name in ('fit', 'finer'))
  for old, new in zip(coarse, fine):
    np.testing.assert_allclose(new[:, 3:-3:2], old[:, 3:-3], atol=1e-6)


def test_training_goes_on_where_it_was(folder):
  old, new = (
    first_loss(folder / 'fit'),
    first_loss(folder / 'finer', **{'model.linear.grid': 10}),
  )
  np.testing.assert_allclose(new, old, rtol=1e-4)
  assert load_json(folder / 'finer', 'config', '')['model']['linear']['grid'] == 10
  with pytest.raises(UserError, match='of another model'):
    train(config_of(restore=str(folder / 'finer')), folder / 'wrong')


@pytest.mark.conformance
def test_a_run_of_version_0(tmp_path, monkeypatch):
  shutil.copytree(ROOT / 'tests/fixtures/version_0/kan_classifier', tmp_path / 'old')
  monkeypatch.chdir(tmp_path)  # its cache is relative
  command('old', 'finer', '--grid=8')
  old, new = (load_past(name, '').parsed for name in ('old', 'finer'))
  assert (old.model.linear.grid, new.model.linear.grid) == (5, 8)
  assert extend_grid.with_grid(old, 8) == new
  assert load_json('finer', 'config', '')['version'] == VERSION
  assert open_run('finer', 0, {'eval.batch_size': 4}).config.model == new.model


def test_the_result_can_be_continued_itself(folder, tmp_path):
  shutil.copytree(folder / 'finer', tmp_path / 'on')
  train(config_of(**{'model.linear.grid': 10, 'train.steps': 1}), tmp_path / 'on')
  assert [line['step'] for line in read_metrics(tmp_path / 'on')[1]] == [1, 1]


def test_moved_knots_follow_the_inputs(look):
  (_, variables, old, inputs), (config, moved, new, _) = look('fit'), look('moved')
  assert config.model.linear.grid == 5
  before, after = knots(variables), knots(moved)
  for (path, now), was in zip(after.items(), before.values()):
    x = np.asarray(inputs[f'network/{path[1].key}'])
    assert np.abs(now - was).max() > 0.02
    quantiles = np.quantile(x, np.linspace(0, 1, 6), axis=0).T
    np.testing.assert_allclose(now[:, 3:-3], quantiles, atol=0.02 * np.ptp(x))
  assert 0 < np.abs(new - old).max() < 0.05 * np.ptp(old)


def test_inputs_beyond_the_range_are_fitted_on_the_finer_grid():
  """There a subdivided grid has other splines; inside it keeps the curves."""
  rng = np.random.default_rng(0)
  c = rng.normal(size=(2, 8, 3)).astype(np.float32)
  x = rng.uniform(-0.9, 0.9, (500, 2)).astype(np.float32) * np.float32([[1, 2]])
  old = np.asarray(uniform_knots(2, 5, 3, -1.0, 1.0))
  new = extend_grid.new_grid(x, c, old, order=3, grid=40)
  values = lambda c, knots: np.einsum(
    'pis,iso->pio', np.asarray(extend_grid.bspline_basis(x, knots, 3)), np.asarray(c)
  )
  inside, beyond = np.abs(values(*new) - values(c, old)).max((0, 2))
  assert inside < 1e-5 and beyond < 0.01
  np.testing.assert_allclose(new[1][0, [3, -4]], [-1, 1], atol=1e-6)
  np.testing.assert_allclose(new[1][1, [3, -4]], [-1.8, 1.8], atol=0.02)


def test_the_command_says_what_it_did(folder, tmp_path, capsys):
  command(folder / 'fit', tmp_path / 'new' / 'finer', '--grid=10', '--step=30')
  first, second, change, after = capsys.readouterr().out.splitlines()
  assert first.startswith('network/layer_0: grid 5 over -1 to 1 -> 10 over -1 to 1')
  assert second.startswith('network/head: grid 5 over -1 to 1 -> 10 over -1 to 1')
  assert 'changed by at most ' in change and change.endswith(' on 240 rows')
  assert f'--config.restore={tmp_path / "new/finer"} --config.model.linear.grid=10' in after


def test_inputs_that_are_all_the_same_far_away_are_refused(look):
  _, variables, _, inputs = look('fit')
  far = {name: 0 * x + 1e6 for name, x in inputs.items()}
  with pytest.raises(UserError, match='^network/layer_0: no knots fit .* 1e.06 to 1e.06$'):
    extend_grid.with_new_grid(variables, far, 3, 5)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    (['--grid=5'], r'--grid=5: must be larger than model\.linear\.grid=5'),
    (['--grid=-1'], "--grid: '-1': must be an integer from 1"),
    (['--step=7'], r'step=7: .* has checkpoints of steps \[30\]'),
    (['--grid=many'], "--grid: 'many': must be an integer from 1"),
    (['--width=1'], '--width=1'),
  ],
)
def test_command_refuses(folder, tmp_path, options, message):
  with pytest.raises(UserError, match=message):
    command(folder / 'fit', tmp_path / 'new', *options)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ('model', 'overrides', 'message'),
  [
    ('fast', {}, r"^model\.linear='kan_fast': must be 'kan_bspline'$"),
    (
      'bspline',
      {'model.linear.data_norm': 'layer'},
      r"^model\.linear\.data_norm='layer': must be",
    ),
  ],
)
def test_networks_without_own_inputs_of_splines_are_refused(model, overrides, message):
  with pytest.raises(UserError, match=message):
    extend_grid.check(config_of(model, **overrides), None)


def test_other_tasks_and_architectures_are_refused(make_config):
  with pytest.raises(UserError, match="^task='language': must be 'regression' or"):
    extend_grid.check(make_config(), None)
  convnet = parse(load_config('configs/images.py:digits,conv_bspline', []))
  with pytest.raises(UserError, match="^model.architecture='convnet': must be 'stack'"):
    extend_grid.check(convnet, None)


def test_output_must_be_new(folder, tmp_path):
  (tmp_path / 'file').write_text('mine')
  for taken in (tmp_path, tmp_path / 'file', folder / 'finer'):
    with pytest.raises(UserError, match='--output=.*: exists; must be a new or an empty'):
      command(folder / 'fit', taken)
  with pytest.raises(UserError, match='--output=.*/file/new: cannot be written'):
    command(folder / 'fit', tmp_path / 'file' / 'new')
  with pytest.raises(UserError, match='--workdir=.*no checkpoint'):
    command(tmp_path, tmp_path / 'new')
  assert (tmp_path / 'file').read_text() == 'mine' and len(list(tmp_path.iterdir())) == 1


def test_a_failure_leaves_nothing(folder, tmp_path, monkeypatch):
  (tmp_path / 'new').mkdir()

  def fail(*_):
    assert list(tmp_path.glob('new.tmp-*/run/checkpoints/0'))
    raise OSError(28, 'No space left on device')

  with monkeypatch.context() as patch:
    patch.setattr(extend_grid, 'write_text', fail)
    with pytest.raises(UserError, match='--output=.*No space left'):
      command(folder / 'fit', tmp_path / 'new')
  assert [path.name for path in tmp_path.iterdir()] == ['new']
  assert not list((tmp_path / 'new').iterdir())
  command(folder / 'fit', tmp_path / 'new')  # an empty folder will do
  assert (tmp_path / 'new' / 'config.json').is_file()


def test_other_points_are_refused_or_accepted(folder, tmp_path, monkeypatch):
  other = dataclasses.replace(functions.FUNCTIONS['product'], low=-0.5)
  monkeypatch.setitem(functions.FUNCTIONS, 'product', other)
  with pytest.raises(UserError, match='the data are not those of step 30.*accept_changed'):
    command(folder / 'fit', tmp_path / 'other', '--grid=10')
  assert not (tmp_path / 'other').exists()
  command(folder / 'fit', tmp_path / 'other', '--grid=10', '--accept_changed')
  splits = lambda at: load_json(at, 'record', '')['splits']
  assert splits(tmp_path / 'other') != splits(folder / 'fit') == splits(folder / 'finer')
