"""The command `convert`: what it writes is a run that evaluates, generates and goes on."""

import json
import re
import shlex
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from elas_jax import convert, evaluate, generate, train
from elas_jax.common.errors import UserError
from elas_jax.common.limits import quoted
from elas_jax.config.config import to_tree
from elas_jax.config.migrate import VERSION
from elas_jax.config.overrides import apply
from elas_jax.config.parsing import parse_stored
from elas_jax.run import conversion
from elas_jax.run.checkpoint import load_json
from elas_jax.run.metrics import read_metrics
from elas_jax.run.state import init_variables
from elas_jax.run.workdir import open_run
from elas_jax.systems.converters import CONVERTERS
from elas_jax.systems.linears import LINEARS
from tests.conformance.hosts import batch, mesh_of, preference
from tests.conftest import ROOT

OLD = ROOT / 'tests/fixtures/version_0'


def command(workdir, output, *options, converter='merge'):
  places = f'--workdir={workdir}', f'--output={output}'
  convert.main([*places, f'--converter={converter}', *options])


@pytest.fixture
def old(tmp_path, monkeypatch):
  """The folder of runs of version 0, and their corpus: the places in them are relative."""
  for name in ('elas', 'lora_relora', 'corpus'):
    shutil.copytree(OLD / name, tmp_path / name)
  monkeypatch.chdir(tmp_path)
  return tmp_path


def evaluation(workdir):
  evaluate.main([f'--workdir={workdir}'])
  return json.loads((workdir / 'evaluation.json').read_text())


def assert_same_evaluation(before, after, rtol=1e-5):
  assert (before.pop('step'), after.pop('step')) == (6, 0)
  assert before.keys() == after.keys()
  for name, value in before.items():
    np.testing.assert_allclose(after[name], value, rtol=rtol, err_msg=name)


@pytest.mark.usefixtures('four_devices')
def test_relora_becomes_dense(old, capsys):
  """Its evaluation, text, tokenizer, data and where it stands in them are as before."""
  command('lora_relora', 'dense')
  lines = capsys.readouterr().out.splitlines()
  assert lines[0] == 'model.linear: lora -> dense'
  assert lines[1:4] == [
    'model.linear.rank: 2 -> -',
    'model.linear.alpha: 32.0 -> -',
    'model.linear.merge_every: 4 -> -',
  ]
  compared, after, where = lines[4:]
  assert compared.startswith('outputs ') and compared.endswith(' on 62 rows')
  assert float(compared.partition('by at most ')[2].split()[0]) < 1e-5
  assert where.endswith('--workdir=dense, or --config.restore=dense')
  assert after.endswith('--config=AS_BEFORE --config.model.linear=dense')
  assert_same_evaluation(evaluation(old / 'lora_relora'), evaluation(old / 'dense'))
  run, was = open_run('dense', None, {}), open_run('lora_relora', None, {})
  assert run.config.model.linear == LINEARS['dense']()
  assert load_json('dense', 'config', '')['version'] == VERSION
  assert run.past.needs == was.past.needs
  assert run.past.record['splits'] == was.past.record['splits']
  assert load_json('dense', 'data', '') == load_json('lora_relora', 'data', '')
  generate.main(['--workdir=dense', '--prompt=the', '--tokens=4'])
  assert "\n--- 'the'\nthe" in capsys.readouterr().out
  train.train(run.past.parsed, 'dense')  # goes on in its own workdir
  steps = [line['step'] for line in read_metrics(old / 'dense')[1] if 'train/loss' in line]
  assert steps == list(range(1, 13))


@pytest.mark.conformance
def test_a_pruned_run_goes_on_pruned(old, capsys):
  """ELAS at step 6, whose warm-up of 3 dense steps is over: so it is in the new run."""
  command('elas', 'dense')
  lines = capsys.readouterr().out.splitlines()
  assert lines[0].startswith('rounded to bfloat16: entries of W by at most 0.00')
  assert lines[1] == "optimizer='loro' steps on factors: 'adamw' takes its place"
  for line in (
    'model.linear: low_rank -> dense',
    'model.feed_forward.dense_steps: 3 -> 0',
    'optimizer: loro -> adamw',
    'optimizer.exact_every: 4 -> -',
    'optimizer.weight_decay: - -> 0.0',
  ):
    assert line in lines
  # Kernels in bfloat16, of 8 bits.
  before, after = (evaluation(old / name) for name in ('elas', 'dense'))
  assert_same_evaluation(before, after, rtol=2e-3)
  (told,) = (line for line in lines if line.startswith('to train on: '))
  flags = [flag for flag in shlex.split(told) if flag.startswith('--config.')]
  assert '--config.optimizer.learning_rate=0.05' in flags
  assert '--config.model.feed_forward.dense_steps=0' in flags
  stored = open_run('elas', None, {}).past.parsed
  tree = ConfigDict(to_tree(stored))
  apply(tree, flags)
  assert parse_stored(tree.to_dict()) == open_run('dense', None, {}).past.parsed


@pytest.mark.conformance
def test_a_run_of_version_1(old, capsys):
  """With an objective that was a field then."""
  shutil.copytree(OLD.with_name('version_1') / 'z_loss', 'z_loss')
  command('z_loss', 'dense')
  assert 'model.linear: low_rank -> dense\n' in capsys.readouterr().out
  old, new = (open_run(name, None, {}).past.parsed for name in ('z_loss', 'dense'))
  assert new.train == old.train and new.train.objectives
  assert load_json('dense', 'config', '')['version'] == VERSION


def test_without_its_data_a_run_is_merged_all_the_same(old, capsys):
  shutil.rmtree('corpus')
  command('lora_relora', 'dense')
  out = capsys.readouterr().out
  assert re.search('\noutputs not compared: .*corpus.*\n', out), out
  kept = load_json('dense', 'record', '')
  assert kept == load_json('lora_relora', 'record', '')


def test_other_data_are_refused_or_accepted(old, capsys):
  with open('corpus/more.txt', 'w') as file:
    file.write('more of it ' * 50)
  with pytest.raises(UserError, match='data are not those of step 6: .*--accept_changed'):
    command('lora_relora', 'dense')
  assert capsys.readouterr().out == '' and not (old / 'dense').exists()
  command('lora_relora', 'dense', '--accept_changed')
  assert load_json('dense', 'record', '') != load_json('lora_relora', 'record', '')


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ([], '--workdir: missing; --help shows the flags'),
    (['--workdir=w'], '--converter: missing; --help shows the flags'),
    (['--workdir=w', '--converter=merge'], '--output: missing; --help shows the flags'),
    (
      ['--workdir=w', '--output=o', '--converter=mrge'],
      "converter='mrge': did you mean 'merge'? must be one of "
      f'{quoted(sorted(CONVERTERS))}',
    ),
    (
      ['--workdir=w', '--output=o', '--converter=merge', '--converter.grid=3'],
      "converter.grid=3: no such field of converter='merge'; 'extend_grid' has it; "
      'accepted: none',
    ),
    (
      ['--workdir=w', '--output=o', '--converter=merge', '--converter.x'],
      "'--converter.x': no such flag; a field is overridden like --converter.FIELD=VALUE, "
      'and --help shows the flags',
    ),
    (
      ['--workdir=w', '--output=o', '--converter=merge', '--grid=3'],
      "'--grid=3': no such flag; a field is set like --converter.FIELD=VALUE, and --help "
      'shows the flags',
    ),
  ],
)
def test_wrong_command_lines_are_one_line(options, message, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(UserError) as error:
    convert.main(options)
  assert str(error.value) == message and not list(tmp_path.iterdir())


def test_a_run_that_does_not_fit_is_refused(tmp_path, monkeypatch):
  shutil.copytree(OLD / 'quadratic', tmp_path / 'run')
  monkeypatch.chdir(tmp_path)
  with pytest.raises(UserError, match="^model.linear='quadratic': must be one of 'low_ran"):
    command('run', 'new')
  with pytest.raises(UserError, match=r'^step=7: run has checkpoints of steps \[6\]'):
    command('run', 'new', '--step=7')
  assert [path.name for path in tmp_path.iterdir()] == ['run']


def test_help_lists_converters_and_their_fields(capsys):
  convert.main(['--help'])
  out = capsys.readouterr().out
  for text in ('--workdir', '--accept_changed', '\n  merge '):
    assert text in out
  assert re.search('\n  extend_grid +New knots', out)
  convert.main(['--help=extend_grid'])
  out = capsys.readouterr().out
  assert '\n  grid                   int = 0\n' in out
  with pytest.raises(UserError, match="^converter='x': must be one of 'ap', 'essential'"):
    convert.main(['--help=x'])


def test_variables_of_another_model_are_the_converters_fault(make_config):
  """Named before anything is written: the first path that differs."""
  config = make_config()
  shapes = conversion.abstract_variables(config)
  conversion.check_variables(config, shapes, 'toy')
  params = {name: x for name, x in shapes['params'].items() if name != 'head'}
  with pytest.raises(UserError, match="^converter='toy': gives params/head None; a model"):
    conversion.check_variables(config, shapes | {'params': params}, 'toy')
  wide = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, 'bfloat16'), shapes)
  with pytest.raises(UserError, match="^converter='toy': gives params/embedding .*bfloat1"):
    conversion.check_variables(config, wide, 'toy')
  broken = {'params': {'head': jnp.array([1.0, jnp.nan]), 'embedding': jnp.ones(3)}}
  with pytest.raises(UserError, match="^converter='toy': params/head is not finite$"):
    conversion.check_finite(broken, 'toy')


def test_a_loss_that_compares_is_no_loss_of_a_converter():
  """Without what it compares with it would be log 2, whatever the weights."""
  config = preference()
  for look in (conversion.loss_of, conversion.slopes_of):
    with pytest.raises(UserError, match="^task='preference': must be another for a conv"):
      look(mesh_of(config), config, init_variables(config), batch(config))
