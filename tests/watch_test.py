"""The command: once, as text while runs go on, on a terminal, and what it refuses."""

import json
import os
import pty
import signal
import subprocess
import sys

import pytest

from elas_jax import watch
from elas_jax.common.errors import UserError
from elas_jax.watch import main
from tests.conftest import ROOT

CONFIG = {'train': {'steps': 4, 'log_every': 1}}


@pytest.fixture
def run(tmp_path):
  workdir = tmp_path / 'run'
  workdir.mkdir()
  (workdir / 'config.json').write_text(json.dumps(CONFIG))
  add(workdir, {'run': {}}, {'step': 1, 'train/loss': 4.0})
  return workdir


def add(workdir, *lines):
  with (workdir / 'metrics.jsonl').open('a') as file:
    file.writelines(json.dumps(line) + '\n' for line in lines)


def test_once_in_a_pipe_without_an_accelerator(run):
  code = (
    'import sys; from elas_jax.watch import main; main(sys.argv[1:]); '
    "assert not {'jax', 'matplotlib'} & sys.modules.keys()"
  )
  done = subprocess.run(
    [sys.executable, '-c', code, f'--workdir={run}', '--once'],
    env=os.environ | {'FORCE_COLOR': '1', 'COLUMNS': '60', 'PYTHONPATH': str(ROOT)},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0 and not done.stderr
  assert 'step 1 of 4 (25%)' in done.stdout and 'loss 4.0000' in done.stdout
  assert all(x.isprintable() or x == '\n' for x in done.stdout)


def test_once_shows_damage_and_ends_with_it(run, capsys):
  add(run, [], {'step': 3})
  with pytest.raises(UserError) as error:
    main([f'--workdir={run}', '--once'])
  assert str(error.value).startswith(f'{run}: metrics.jsonl: line 3 is damaged (')
  assert 'step 3 of 4' in capsys.readouterr().out


def test_where_no_terminal_is_a_picture_a_change_until_all_are_finished(
  run, tmp_path, monkeypatch, capsys
):
  other = tmp_path / 'other'
  other.mkdir()
  steps = [
    lambda: None,
    lambda: add(run, {'step': 2, 'train/loss': 2.0}),
    lambda: add(run, {'step': 4, 'eval/loss': 2.0}),
    lambda: (other / 'config.json').write_text(json.dumps(CONFIG)),
    lambda: add(other, {'run': {}}, [], {'step': 4, 'eval/loss': 1.0}),
  ]
  waited = []

  def sleep(seconds):
    waited.append(seconds)
    steps.pop(0)()

  monkeypatch.setattr(watch.time, 'sleep', sleep)
  monkeypatch.setenv('COLUMNS', '80')
  main(['--workdir', str(run), str(other), '--every=3'])
  printed = capsys.readouterr().out
  assert waited == [3] * 5 and not steps
  assert printed.count('╮╭') == 5
  assert printed.count('not begun') == 3 and printed.count('line 2 is damaged') == 1
  assert printed.count('finished') == 2 + 1 + 1


def test_control_c_is_no_error(run, monkeypatch, capsys):
  def sleep(seconds):
    raise KeyboardInterrupt

  monkeypatch.setattr(watch.time, 'sleep', sleep)
  main([f'--workdir={run}', f'--workdir={run}'])
  printed = capsys.readouterr()
  assert printed.out.count('step 1 of 4') == 2 and not printed.err


@pytest.mark.parametrize('number, code', [(signal.SIGINT, 0), (signal.SIGTERM, 128 + 15)])
def test_a_terminal_is_left_as_it_was(run, number, code):
  parent, child = pty.openpty()
  process = subprocess.Popen(
    [sys.executable, '-m', 'elas_jax.watch', f'--workdir={run}', '--every=1'],
    stdin=child,
    stdout=child,
    stderr=child,
    cwd=ROOT,
    env=os.environ | {'TERM': 'xterm', 'COLUMNS': '60', 'LINES': '20'},
  )
  os.close(child)
  seen = ''
  with os.fdopen(parent, 'rb', buffering=0) as terminal:
    while 'of 4' not in seen:
      seen += terminal.read(4096).decode(errors='replace')
    process.send_signal(number)
    try:
      while text := terminal.read(4096).decode(errors='replace'):
        seen += text
    except OSError:  # how Linux says that nobody has the other end
      pass
  assert process.wait() == code
  before, inside, after = seen.replace('\x1b[?1049l', '\x1b[?1049h').split('\x1b[?1049h')
  assert 'step 1 of 4' in inside and 'step 1 of 4' in after
  assert '\x1b[?25h' in seen and 'rror' not in seen and 'Traceback' not in seen


@pytest.mark.parametrize(
  'arguments, said',
  [
    (['--workdir=none'], '--workdir=none: no such folder; must be the folder of a run'),
    (['--workdir', '.', __file__], f'--workdir={__file__}: not a folder; must be the'),
    (['--workdir='], '--workdir: empty; must be a path'),
    ([], 'the following arguments are required: --workdir'),
    (['--workdir=.', '--every=0'], "argument --every: '0': must be an integer from 1"),
    (['--workdir=.', '--steps=1'], 'unrecognized arguments: --steps=1'),
  ],
)
def test_refused_in_one_line(arguments, said):
  with pytest.raises(UserError) as error:
    main([*arguments, '--once'])
  assert said in str(error.value) and '\n' not in str(error.value)
