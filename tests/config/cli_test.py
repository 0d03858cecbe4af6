"""The command line: overrides, and mistakes answered in one line that helps."""

import concurrent.futures
import os
import pathlib
import subprocess
import sys

import pytest

from elas_jax import train as train_module
from elas_jax.common.errors import UserError
from elas_jax.config.cli import load_config, run_command

ROOT = pathlib.Path(__file__).parents[2]
DEFAULT = str(ROOT / 'configs/default.py')


def run(module, *arguments):
  """The finished process of `python -m elas_jax.MODULE`."""
  return subprocess.run(
    [sys.executable, '-m', f'elas_jax.{module}', *arguments],
    capture_output=True,
    text=True,
    cwd=ROOT,
    env=os.environ | {'JAX_PLATFORMS': 'cpu'},
  )


def run_all(*commands):
  """The finished processes, which run beside one another."""
  with concurrent.futures.ThreadPoolExecutor(len(commands)) as threads:
    return list(threads.map(lambda words: run(*words), commands))


def assert_one_line(done, *parts):
  assert done.returncode == 2, done.stderr
  assert done.stdout == ''
  assert done.stderr.startswith('error: ')
  assert done.stderr.count('\n') == 1
  for part in parts:
    assert part in done.stderr


def test_overrides_take_the_type_of_the_field():
  config = load_config(
    DEFAULT,
    [
      '--config.model.linear.rank=16',
      '--config.optimizer.learning_rate=1e-2',
      '--config.optimizer.weight_decay=1',
      '--config.model.tied_head=true',
      '--config.train.steps=2_000',
      '--config.data.source=text_files',
      '--config.data.source.path=1',
      '--config.eval.prompt=a=b c',
      "--config.optimizer.decay_rules=[('head$', 0.0), ('.*', 1.0)]",
    ],
  )
  assert config.model.linear.rank == 16
  assert config.optimizer.learning_rate == 0.01
  assert config.optimizer.weight_decay == 1.0
  assert config.model.tied_head is True
  assert config.schedule.warmup_steps == 200  # a tenth of the steps
  assert config.data.source.path == '1'
  assert config.eval.prompt == 'a=b c'
  assert config.optimizer.decay_rules == (('head$', 0.0), ('.*', 1.0))


def test_a_config_file_may_freeze_what_it_returns(tmp_path):
  file = tmp_path / 'frozen.py'
  file.write_text(
    'from ml_collections import FrozenConfigDict\n'
    "get_config = lambda: FrozenConfigDict({'model': {'linear': {'kind': 'lora'}}})\n"
  )
  config = load_config(str(file), ['--config.model.linear.rank=8', '--config.seed=3'])
  assert (config.model.linear.rank, config.seed) == (8, 3)


def test_argument_of_the_config_file():
  config = load_config(str(ROOT / 'configs/c4.py') + ':130m,full', [])
  assert config.model.width == 768
  assert config.model.linear.kind == 'dense'


@pytest.mark.parametrize(
  'arguments, message',
  [
    (
      ['--config.model.rnak=16'],
      r'model.rnak=16: no such field; did you mean model.linear.rank\? accepted: '
      'model.attention, ',
    ),
    (['--config.modle.rank=16'], r'modle.rank=16: .*did you mean model\?.*, optimizer'),
    (['--config.xyz=16'], 'xyz=16: no such field; accepted: checkpoint, data'),
    (['--config.seed.rank=16'], 'seed.rank=16: no such field; seed is not a section'),
    (['--config.model=16'], 'model=16: is a section; accepted: model.attention, '),
    (['--config.model.linear.rank=-1'], 'model.linear.rank=-1: must be at least 1'),
    (['--config.model.linear.rank=abc'], "model.linear.rank='abc': must be of type int"),
    (['--config.model.linear.rank='], "model.linear.rank='': must be of type int"),
    (['--config.model.linear.rank=1.5'], "model.linear.rank='1.5': must be of type int"),
    (['--config.model.linear.rank=True'], "model.linear.rank='True': must be of type int"),
    (['--config.model.tied_head=1'], "model.tied_head='1': must be of type bool"),
    (['--config.optimizer.decay_rules=3'], 'decay_rules.*must be of type tuple'),
    (['--config.optimizer.decay_rules=(3,)'], r'decay_rules: 3 must be a pair'),
    (["--config.optimizer.decay_rules=('a', 'b')"], "decay_rules: 'a' must be a pair"),
    (
      ["--config.optimizer.decay_rules=[('a', 'b')]"],
      r"decay_rules: \('a', 'b'\) must be a pair",
    ),
    (['--config.optimizer.learning_rate=inf'], "'inf': must be of type float"),
    (
      ['--config.optimizer.learning_rate=' + '1' * 400],
      'learning_rate=1.*: must be finite',
    ),
    (['--config.optimizer.epsilon=1e400'], 'epsilon=inf: must be finite'),
    (['--config.train.steps=' + '-' * 20000 + '1'], "steps='-.*: must be of type int"),
    (['--config.train.steps=' + '9' * 5000], "steps='9.*: must be of type int"),
    (['--config.train.steps=\u0661\u0662'], 'must be of type int'),
    (['--config.optimizer.decay_rules=' + '(' * 50000], 'must be of type tuple'),
    (['--config.optimizer.decay_rules={[]: 1}'], 'must be of type tuple'),
    (['--config.' + 'x' * 10**5 + '=1'], 'xxx.*characters.: no such field'),
    (['--' + 'x' * 10**5], 'no such flag'),
    (
      ['--config.model.attention.heads=7'],
      'model.attention.heads=7: must divide model.width=.*; accepted: 1, 2',
    ),
    (['--config.data.batch_size=0'], 'data.batch_size=0: must be at least 1'),
    (['--config.seed=4294967296'], 'seed=4294967296: must be at most 4294967295'),
    (['--config=absent.py'], '--config=absent.py: no such file; give FILE.py'),
    (['--config='], '--config=: no such file'),
    (['--config=configs/c4.py:900m,foo'], 'c4.py:900m,foo: must be SIZE,METHOD with.*130m'),
    (['--config=configs/text.py:foo'], '--config=configs/text.py:foo: .*1 was given'),
    (['--config=configs/text.py'], "data.source.path=''"),
    (['stray'], "'stray': no such flag; .*--config.train.steps=100"),
    (['--wrokdir=run'], "'--wrokdir=run': no such flag; .*--help"),
    (['--config.model.linear.rank', '16'], "'--config.model.linear.rank': no such flag"),
    (['--work=run'], "'--work=run': no such flag"),
    ([], '--workdir: missing; give a folder'),
  ],
)
def test_mistake_is_named_with_what_is_accepted(arguments, message, monkeypatch):
  monkeypatch.chdir(ROOT)
  with pytest.raises(UserError, match=message) as error:
    train_module.main(arguments)
  assert len(str(error.value)) < 4000  # whatever is given


@pytest.mark.parametrize(
  'content, message',
  [
    ('x = 1\n\nundefined', '--config={path}: line 3: NameError.*undefined'),
    ('x = (', '--config={path}: SyntaxError'),
    ('x = 1', '--config={path}: must define a function get_config'),
    ('get_config = 5', '--config={path}: must define a function get_config'),
    ('def get_config():\n  return None', '--config={path}: get_config returned None; must'),
    ('get_config = lambda: 5', '--config={path}: get_config returned 5; must be a Conf'),
    ("get_config = lambda: {'seed': 0}", "--config={path}: get_config returned {{'seed'"),
    ('import sys\nsys.exit()', '--config={path}: line 2: SystemExit'),
    ("def get_config():\n  raise ValueError('mine')", '^mine$'),
    (
      'from configs import default\n\n'
      'def get_config():\n  config = default.get_config()\n  config.modle.rank = 3\n',
      '--config={path}: line 5: AttributeError: .*modle.*Did you mean "model"',
    ),
  ],
)
def test_failing_config_file_is_named_with_its_line(tmp_path, content, message):
  path = tmp_path / 'mine.py'
  path.write_text(content)
  with pytest.raises(UserError) as caught:
    load_config(str(path), [])
  with pytest.raises(UserError, match='(?s)' + message.format(path=path)):
    raise caught.value


@pytest.mark.parametrize(
  'error, code, line',
  [
    (UserError('a=1: must\n  be 2'), 2, 'error: a=1: must be 2\n'),
    (KeyboardInterrupt(), 130, 'error: interrupted\n'),
    (BrokenPipeError(), 1, ''),
  ],
)
def test_errors_become_one_line_and_a_code(error, code, line, monkeypatch, capsys):
  def main():
    raise error

  monkeypatch.setattr(sys, 'unraisablehook', sys.unraisablehook)  # restored at the end
  with pytest.raises(SystemExit) as caught:
    run_command(main)
  assert caught.value.code == code
  assert capsys.readouterr().err == line


def test_bug_keeps_its_traceback():
  def main():
    raise ZeroDivisionError

  with pytest.raises(ZeroDivisionError):
    run_command(main)


@pytest.mark.conformance
def test_processes_print_one_line(tmp_path):
  workdir = f'--workdir={tmp_path / "run"}'
  absent = f'{tmp_path}/no'
  wrong, missing, evaluated, generated = run_all(
    ('train', '--config.model.rnak=16', workdir),
    ('train', '--config=configs/text.py', f'--config.data.source.path={absent}', workdir),
    ('evaluate', workdir),
    ('generate', '--tokens=5'),
  )
  assert_one_line(wrong, 'model.rnak=16', 'model.linear.rank')
  assert_one_line(missing, f"data.source.path='{absent}' does not exist", '.txt')
  assert_one_line(evaluated, workdir.split('=')[1], 'no checkpoint')
  assert_one_line(generated, '--workdir')
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('encoding', ['ascii', 'latin-1'])
def test_output_that_is_not_utf8_replaces_characters(encoding, tmp_path):
  code = (
    "from elas_jax.config.cli import run_command; run_command(lambda: print('naïve 水'))"
  )
  done = subprocess.run(
    [sys.executable, '-c', code],
    capture_output=True,
    cwd=ROOT,
    env=os.environ | {'PYTHONIOENCODING': encoding},
  )
  assert done.stderr == b''
  assert done.stdout == 'naïve 水\n'.encode(encoding, 'replace')


def test_own_configs_are_found_from_any_folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  config = load_config('configs/c4.py:60m,elas', [])
  assert config.model.feed_forward.kind == 'relu2_two_four'
  # One's own file of that name comes first, and no other file of the package is a config.
  (tmp_path / 'configs').mkdir()
  (tmp_path / 'configs/c4.py').write_text('raise ValueError("mine")')
  with pytest.raises(UserError, match='^mine$'):
    load_config('configs/c4.py:60m,elas', [])
  with pytest.raises(UserError, match='no such file'):
    load_config('train.py', [])


@pytest.mark.conformance
def test_corpus_shorter_than_a_batch(tmp_path):
  corpus = tmp_path / 'corpus'
  corpus.mkdir()
  for number in range(9):
    (corpus / f'{number}.txt').write_text(f'a short text, number {number}')
  done = run(
    'train',
    '--config=configs/text.py',
    f'--config.data.source.path={corpus}',
    f'--config.data.cache_dir={tmp_path / "cache"}',
    '--config.train.compilation_cache=',
    f'--workdir={tmp_path / "run"}',
  )
  assert_one_line(done, 'data.batch_size=', 'a batch of at most')
  assert not (tmp_path / 'run').exists()  # so that the corrected command may start


def test_help(capsys):
  train_module.main(['--help'])
  printed, error = capsys.readouterr()
  assert error == ''
  for flag in ('--config', '--workdir', '--dry_run', '--config.train.steps=100'):
    assert flag in printed
