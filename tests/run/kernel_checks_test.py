"""What 2:4 products run on, in the commands: what runs, what is refused and said."""

import json
import shutil

import pytest

import elas_jax.ops.two_four
import pallas_kernels.two_four
from elas_jax.common.errors import UserError
from elas_jax.evaluate import main as evaluate
from elas_jax.generate import main as generate
from elas_jax.run.dry_run import dry_run
from elas_jax.run.notes import notes as notes_of
from elas_jax.train import train
from tests.conftest import on_four_devices, tiny_config, write_corpus
from tests.finished_runs import computed, notes

ELAS = {
  'model.feed_forward': 'relu2_two_four',
  'model.compute_dtype': 'bfloat16',
  'train.steps': 2,
  'model.layers': 1,
  'eval.units': 256,
}
FIELD = 'model.feed_forward.implementation'
REFUSED = (
  f"{FIELD}='mosaic': needs a Hopper GPU, compute capability 9.0; this process has cpu "
  '(cpu)'
)
IN_XLA = '2:4 products: dense, in XLA'


@pytest.fixture(scope='module')
def by_kernels(tmp_path_factory):
  """A run that asked for the kernels, where they run. Read only."""
  folder = tmp_path_factory.mktemp('elsewhere')
  write_corpus(folder / 'corpus', [80] * 40)
  with on_four_devices(), pytest.MonkeyPatch.context() as patch:
    # A CPU has none: what they compute is left to XLA here.
    patch.setattr(pallas_kernels.two_four, 'takes_kernels', lambda **_: True)
    patch.setattr(elas_jax.ops.two_four, 'takes_kernels', lambda *_, **__: False)
    train(tiny_config(folder, **ELAS | {FIELD: 'mosaic'}), folder / 'run')
  return folder


@pytest.fixture
def folder(by_kernels, tmp_path):
  shutil.copytree(by_kernels / 'run', tmp_path / 'run')
  (tmp_path / 'corpus').symlink_to(by_kernels / 'corpus')
  return tmp_path


def test_training_is_refused_where_no_kernel_runs(make_config, corpus, tmp_path):
  config = make_config(**ELAS | {FIELD: 'mosaic'})
  for start in (
    lambda: train(config, tmp_path / 'run'),
    lambda: dry_run(config),
  ):
    with pytest.raises(UserError) as error:
      start()
    assert str(error.value) == f"{REFUSED}; 'auto' and 'xla' run here"
  assert not (tmp_path / 'run').exists() and not (tmp_path / 'cache').exists()


@pytest.mark.conformance
def test_the_run_is_evaluated_and_continued_with_text_where_there_are_none(folder, capsys):
  stored = json.loads((folder / 'run/config.json').read_text())
  assert stored['model']['feed_forward']['implementation'] == 'mosaic'
  evaluate([f'--workdir={folder / "run"}', '--tokens=256'])
  found = json.loads((folder / 'run/evaluation.json').read_text())
  (line,) = [x for x in capsys.readouterr().err.splitlines() if FIELD in x]
  assert line == f"{REFUSED}; here 'auto' is taken"
  (last,) = [x for x in computed(folder / 'run') if x['step'] == 2 and 'eval/loss' in x]
  assert found['eval/loss'] == pytest.approx(last['eval/loss'])
  generate([f'--workdir={folder / "run"}', '--prompt=alpha', '--tokens=2'])
  said = capsys.readouterr()
  assert "--- 'alpha'" in said.out and REFUSED in said.err


@pytest.mark.conformance
def test_the_run_goes_on_elsewhere(folder, capsys):
  more = ELAS | {'train.steps': 3}
  with pytest.raises(UserError, match='needs a Hopper GPU'):
    train(tiny_config(folder, **more | {FIELD: 'mosaic'}), folder / 'run')
  train(tiny_config(folder, **more), folder / 'run')
  assert 'continuing after step 2' in capsys.readouterr().out
  assert notes(folder / 'run')[-1] == (2, IN_XLA)
  assert computed(folder / 'run')[-1]['step'] == 3


@pytest.mark.conformance
def test_the_run_says_what_its_products_run_on(by_kernels):
  assert notes(by_kernels / 'run') == [(0, IN_XLA)]


def test_every_start_knows_what_the_products_run_on(make_config):
  assert notes_of(make_config(**ELAS | {FIELD: 'xla'})) == [IN_XLA]
  assert notes_of(make_config(**ELAS | {'model.feed_forward': 'mlp'})) == []
