"""A run that is started again on another library of Python, on other rows or classes, or
with other data in one of its processes."""

import dataclasses
import pathlib
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from elas_jax.common.errors import UserError
from elas_jax.data import blocks, functions, rows, standard_library
from elas_jax.data.record import difference
from elas_jax.evaluate import main as evaluate_run
from elas_jax.run import continuation
from elas_jax.train import train
from tests.conftest import ROOT, write_corpus
from tests.finished_runs import drop_items, notes
from tests.tasks.networks import tiny


def test_the_library_of_another_python_is_other_data(make_config, tmp_path, monkeypatch):
  for name in ('one', 'two'):
    for path in write_corpus(tmp_path / name, [80] * 40).iterdir():
      path.rename(path.with_suffix('.py'))
  (tmp_path / 'two/000.py').write_text('self ' * 99)
  config = make_config(**{'data.source': 'python_source'}).data
  records = []
  for name in ('one', 'two', 'one'):
    library = str(tmp_path / name)
    monkeypatch.setattr(standard_library.sysconfig, 'get_path', lambda _, at=library: at)
    records.append(blocks.prepare(config.source.corpus(config)).record())
  old, new, again = records
  assert 'data.source: 1 file (000.py) changed' in difference(old, new)
  assert difference(old, again) == ''


@pytest.fixture
def rows_run(tmp_path, monkeypatch):
  """make(steps) of a run on drawn points, of which 2 of 4 steps are done."""
  (tmp_path / 'configs').symlink_to(ROOT / 'configs')
  monkeypatch.chdir(tmp_path)
  fields = {'schedule.warmup_steps': 1, 'schedule': 'constant'}

  def make(argument='product,mlp', **more):
    return tiny('functions', argument, **fields | {'train.steps': 4} | more)

  train(make(**{'train.steps': 2}), 'run')
  return make


def test_other_points_of_the_same_config_are_refused(rows_run, monkeypatch):
  """As another version of a library might draw them."""
  other = dataclasses.replace(
    functions.FUNCTIONS['product'], formula=lambda x: x[:, 0] * x[:, 1] + 1e-3
  )
  monkeypatch.setitem(functions.FUNCTIONS, 'product', other)
  with pytest.raises(UserError, match='not those of step 2 in run: other rows, by another'):
    train(rows_run(), 'run')
  train(rows_run(**{'data.accept_changed': True}), 'run')
  assert [step for step, _ in notes('run')] == [2]
  with pytest.raises(UserError, match='--workdir=run: the data are not those of step 2'):
    evaluate_run(['--workdir=run', '--step=2'])


def test_classes_of_other_names_are_refused(rows_run, monkeypatch):
  train(rows_run('rings,mlp', **{'train.steps': 2}), 'shapes')

  of_shape = rows.of_shape

  def renamed(points):
    return dataclasses.replace(of_shape(points), class_names=('1', '0'))

  monkeypatch.setattr(rows, 'of_shape', renamed)
  with pytest.raises(UserError, match=r"class_names \['1', '0'\] instead of \['0', '1'\]"):
    train(rows_run('rings,mlp'), 'shapes')
  with pytest.raises(UserError, match='restore=.*the classes 1, 0 are not 0, 1 as there'):
    train(rows_run('rings,mlp', restore='shapes'), 'other')
  for step in pathlib.Path('shapes/checkpoints').iterdir():
    drop_items(step, 'record', 'checksums')
  with pytest.raises(UserError, match='the classes 1, 0 are not 0, 1 as in shapes'):
    train(rows_run('rings,mlp'), 'shapes')


@pytest.mark.parametrize('equal', [True, False])
def test_processes_must_have_the_same_data(make_config, monkeypatch, equal):
  config = make_config()
  data = SimpleNamespace(record=lambda: {'splits': {'train': 'x'}}, describe=dict)

  def gather(own):
    return np.stack([own, own if equal else own + 1])

  monkeypatch.setattr(continuation.multihost_utils, 'process_allgather', gather)
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  if equal:
    continuation.check_data(None, config, data)
    return
  with pytest.raises(UserError, match='process 0 has other data than process 1'):
    continuation.check_data(None, config, data)
