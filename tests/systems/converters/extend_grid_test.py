"""New knots of trained B-splines, by the command and on from its result."""

import dataclasses
import functools
import shutil

import jax
import numpy as np
import pytest

from elas_jax import convert
from elas_jax.common.errors import UserError
from elas_jax.config.checks import check
from elas_jax.config.cli import load_config
from elas_jax.config.migrate import VERSION
from elas_jax.config.parsing import parse
from elas_jax.data import functions
from elas_jax.ops.kan.bspline import uniform_knots
from elas_jax.run import conversion
from elas_jax.run.checkpoint import load_json
from elas_jax.run.continuation import load_past
from elas_jax.run.metrics import read_metrics
from elas_jax.run.state import abstract_variables, init_variables
from elas_jax.run.workdir import open_run
from elas_jax.systems.architectures import ARCHITECTURES
from elas_jax.systems.converters import common, extend_grid
from elas_jax.systems.linears import LINEARS
from elas_jax.systems.linears.kan_bspline import true_splines
from elas_jax.train import train
from tests.conformance.hosts import given as given_of
from tests.conformance.hosts import language, network
from tests.conftest import ROOT, on_four_devices

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
  places = f'--workdir={workdir}', f'--output={output}'
  convert.main([*places, '--converter=extend_grid', *options])


@pytest.fixture(scope='module', autouse=True)
def on_all_devices():
  with on_four_devices():
    yield


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """With runs: `fit`; `finer`, its grid of 5 made one of 10; `moved`."""
  made = tmp_path_factory.mktemp('runs')
  train(config_of(), made / 'fit')
  command(made / 'fit', made / 'finer', '--converter.grid=10')
  command(made / 'fit', made / 'moved')
  return made


@pytest.fixture(scope='module')
def look(folder):
  """Of a run: config, variables, outputs and layers' inputs on rows of the train split."""

  @functools.cache
  def at(name):
    run = open_run(folder / name, None, {'eval.batch_size': 4})
    given = conversion.Source(run, False).given
    rows = given.rows(1000)
    assert len(rows['inputs']) == 240
    outputs, sown = given.outputs(run.config, run.variables, rows, ('inputs',))
    return run.config, run.variables, outputs, sown['inputs']

  return at


def knots(variables):
  return {
    path: np.asarray(x) for path, x in jax.tree.leaves_with_path(variables['buffers'])
  }


def first_loss(folder, **overrides):
  config = config_of(**{'train.steps': 1, 'restore': str(folder)} | overrides)
  train(config, folder.with_name(f'from_{folder.name}'))
  return read_metrics(folder.with_name(f'from_{folder.name}'))[1][0]['train/loss']


@pytest.mark.conformance
def test_a_finer_grid_keeps_the_outputs(look):
  """Inside the old range a curve on 5 intervals is one on 10.

  What is left is float32: 2^-24 = 6e-8, times the condition of a least-squares fit of
  cubic splines, some tens, times coefficients and sums over inputs of order one.
  """
  (_, _, old, inputs), (_, _, new, _) = look('fit'), look('finer')
  assert all(np.abs(x).max() <= 1 for x in inputs.values())
  assert np.ptp(old) > 0.1
  np.testing.assert_allclose(new, old, rtol=0, atol=1e-5)


@pytest.mark.conformance
def test_a_finer_grid_is_that_of_a_fresh_model(look):
  config, variables, _, inputs = look('finer')
  assert config.model.linear.grid == 10
  shapes = functools.partial(jax.tree.map, lambda x: (x.shape, x.dtype))
  assert shapes(variables) == shapes(
    abstract_variables(config_of(**{'model.linear.grid': 10}))
  )
  assert set(inputs) == {'network/layer_0', 'network/head'}
  coarse, fine = (knots(look(name)[1]).values() for name in ('fit', 'finer'))
  for old, new in zip(coarse, fine):
    np.testing.assert_allclose(new[:, 3:-3:2], old[:, 3:-3], atol=1e-6)


@pytest.mark.conformance
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
  monkeypatch.setattr(extend_grid, 'SAMPLES', 100)
  command('old', 'finer', '--converter.grid=8')
  old, new = (load_past(name, '').parsed for name in ('old', 'finer'))
  assert (old.model.linear.grid, new.model.linear.grid) == (5, 8)
  finer = dataclasses.replace(old.model.linear, grid=8)
  assert common.with_model(old, linear=finer) == new
  assert load_json('finer', 'config', '')['version'] == VERSION
  assert open_run('finer', 0, {'eval.batch_size': 4}).config.model == new.model


@pytest.mark.conformance
def test_the_result_can_be_continued_itself(folder, tmp_path):
  shutil.copytree(folder / 'finer', tmp_path / 'on')
  train(config_of(**{'model.linear.grid': 10, 'train.steps': 1}), tmp_path / 'on')
  assert [line['step'] for line in read_metrics(tmp_path / 'on')[1]] == [1, 1]


@pytest.mark.conformance
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


@pytest.mark.conformance
def test_the_command_says_what_it_did(folder, tmp_path, capsys):
  command(folder / 'fit', tmp_path / 'new' / 'finer', '--converter.grid=10', '--step=30')
  *layers, field, change, after, where = capsys.readouterr().out.splitlines()
  for line, name in zip(sorted(layers), ('head', 'layer_0'), strict=True):
    assert line.startswith(f'network/{name}: grid 5 over -1 to 1 -> 10 over -1 to 1')
  assert field == 'model.linear.grid: 5 -> 10'
  assert 'changed by at most ' in change and change.endswith(' on 240 rows')
  assert after.endswith('--config=AS_BEFORE --config.model.linear.grid=10')
  output = tmp_path / 'new/finer'
  assert where.endswith(f'--workdir={output}, or --config.restore={output}')


@pytest.mark.conformance
def test_inputs_that_are_all_the_same_far_away_are_refused(look):
  config, variables, outputs, inputs = look('fit')
  far = {name: 0 * x + 1e6 for name, x in inputs.items()}
  given = common.Given(
    config,
    variables,
    linear_maps=(),
    rows=lambda count: {'inputs': np.zeros((1, 2))},
    outputs=lambda *_: (outputs, {'inputs': far}),
    start=None,
    loss=None,
    slopes=None,
    check=check,
    say=print,
  )
  with pytest.raises(UserError, match='^network/.*: no knots fit .* 1e.06 to 1e.06$'):
    extend_grid.ExtendGrid().convert(given)


@pytest.mark.conformance
@pytest.mark.parametrize(
  ('options', 'message'),
  [
    (
      ['--converter.grid=5'],
      r'^converter\.grid=5: must be larger than model.linear.grid=5',
    ),
    (['--converter.grid=-1'], r'^converter\.grid=-1: must be at least 0'),
    (['--converter.grid=99999999'], r'^model\.linear\.grid_max=1.0: must be larger than'),
    (['--step=7'], r'step=7: .* has checkpoints of steps \[30\]'),
    (['--converter.grid=many'], r"^converter\.grid='many': must be of type int"),
    (['--width=1'], '--width=1'),
  ],
)
def test_command_refuses(folder, tmp_path, options, message):
  with pytest.raises(UserError, match=message):
    command(folder / 'fit', tmp_path / 'new', *options)
  assert not list(tmp_path.iterdir())


def test_what_has_no_splines_is_refused(make_config):
  for config, name in ((config_of('fast'), 'kan_fast'), (make_config(), 'low_rank')):
    with pytest.raises(UserError, match=rf"^model\.linear='{name}': must be 'kan_bspline'"):
      extend_grid.ExtendGrid().check('converter', config)


SPLINES = LINEARS['kan_bspline'](grid=4, order=2)


@pytest.mark.conformance
@pytest.mark.parametrize(
  'config',
  [
    pytest.param(
      language(linear=SPLINES, feed_forward_width=8),
      id='decoder',
    ),
    pytest.param(
      network(
        linear=dataclasses.replace(SPLINES, data_norm='layer'),
        architecture=ARCHITECTURES['convnet'](),
      ),
      id='convnet',
    ),
  ],
)
def test_all_that_is_made_of_splines_is_converted(config):
  """Stacked layers, patches of images, and inputs behind a LayerNorm; splines by NumPy."""
  variables = init_variables(config)
  given = given_of(config, variables, [])
  shown = extend_grid.samples(given)
  converter = extend_grid.ExtendGrid(grid=12)
  converter.check('converter', config)
  new_config, new = converter.convert(given)
  conversion.check_variables(new_config, new, 'extend_grid')
  assert shown and all(np.ptp(x) > 0 for x in shown.values())
  for layer, x in shown.items():
    if config.model.linear.data_norm == 'layer':  # as a LayerNorm makes them
      np.testing.assert_allclose(x.mean(-1), 0, atol=1e-4)
    kinds = {'old': variables, 'new': new}
    c, knots = (
      {
        which: np.float64(at(tree[part], f'{layer}/{name}'))
        for which, tree in kinds.items()
      }
      for part, name in (('params', 'coefficients'), ('buffers', 'knots'))
    )
    for which in kinds:  # one after the other, where layers are stacked
      c[which] = c[which].reshape(-1, *c[which].shape[-3:])
      knots[which] = knots[which].reshape(-1, *knots[which].shape[-2:])
    for layer_x, *own in zip(
      np.float64(x).reshape(-1, *x.shape[-2:]),
      *(array for pair in zip(c.values(), knots.values()) for array in pair),
      strict=True,
    ):
      assert_same_curves(layer_x, *own)


def assert_same_curves(x_PxI, c, knots, new_c, new_knots):
  """Of each input, at the samples: the squared change is at most 5 % of the curves."""
  old, new = (
    np.einsum('pis,iso->ipo', true_splines(x_PxI, at, 2), of)
    for of, at in ((c, knots), (new_c, new_knots))
  )
  change, size = np.square(new - old).sum((1, 2)), np.square(old).sum((1, 2))
  assert size.min() > 0
  np.testing.assert_array_less(change, 0.05 * size)


def at(tree, path):
  return functools.reduce(dict.__getitem__, path.split('/'), tree)


@pytest.mark.conformance
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


@pytest.mark.conformance
def test_a_failure_leaves_nothing(folder, tmp_path, monkeypatch):
  (tmp_path / 'new').mkdir()

  def fail(*_):
    assert list(tmp_path.glob('new.tmp-*/*/checkpoints/0'))
    raise OSError(28, 'No space left on device')

  with monkeypatch.context() as patch:
    patch.setattr(conversion, 'write_text', fail)
    with pytest.raises(UserError, match='--output=.*No space left'):
      command(folder / 'fit', tmp_path / 'new')
  assert [path.name for path in tmp_path.iterdir()] == ['new']
  assert not list((tmp_path / 'new').iterdir())
  command(folder / 'fit', tmp_path / 'new')  # an empty folder will do
  assert (tmp_path / 'new' / 'config.json').is_file()


@pytest.mark.conformance
def test_other_points_are_refused_or_accepted(folder, tmp_path, monkeypatch):
  other = dataclasses.replace(functions.FUNCTIONS['product'], low=-0.5)
  monkeypatch.setitem(functions.FUNCTIONS, 'product', other)
  with pytest.raises(UserError, match='the data are not those of step 30.*accept_changed'):
    command(folder / 'fit', tmp_path / 'other', '--converter.grid=10')
  assert not (tmp_path / 'other').exists()
  command(folder / 'fit', tmp_path / 'other', '--converter.grid=10', '--accept_changed')
  splits = lambda at: load_json(at, 'record', '')['splits']
  assert splits(tmp_path / 'other') != splits(folder / 'fit') == splits(folder / 'finer')
