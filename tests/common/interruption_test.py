"""Commands that are told to stop: from the first import on, and with what they began."""

import fcntl
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from elas_jax import train
from elas_jax.common.errors import UserError
from elas_jax.data import blocks, train_tokenizer
from elas_jax.data.corpus import Corpus
from elas_jax.data.sources import list_source

ROOT = pathlib.Path(__file__).parents[2]


def start(*words, path=ROOT, **options):
  environment = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(path)}
  return subprocess.Popen(
    [sys.executable, *words],
    cwd=ROOT,
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    **options,
  )


@pytest.fixture(autouse=True)
def heeds_signals():
  """So that what is started does, also where these tests run under nohup or in the
  background of a shell, which ignores them."""
  heeded = {signal.SIGHUP: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
  before = {which: signal.signal(which, how) for which, how in heeded.items()}
  yield
  for which, how in before.items():
    signal.signal(which, how)


@pytest.mark.parametrize(
  'module',
  [
    *('elas_jax.train', 'elas_jax.evaluate', 'elas_jax.generate', 'elas_jax.convert'),
    *('elas_jax.data.prepare', 'elas_jax.data.train_tokenizer', 'experiments.run'),
    'benchmarks.kan_layers',
  ],
)
def test_control_c_while_a_command_imports_is_one_line(module, tmp_path):
  """In the place of NumPy, which all of them import, stands a module that is interrupted.

  It catches everything, as some modules do while they are imported.
  """
  (tmp_path / 'numpy.py').write_text(
    'import os, signal, time\n'
    'try:\n'
    '  os.kill(os.getpid(), signal.SIGINT)\n'
    '  time.sleep(20)\n'
    'except BaseException as error:\n'
    '  raise ImportError("caught") from error\n'
  )
  process = start('-m', module, path=tmp_path)
  printed, error = process.communicate(timeout=60)
  assert (process.returncode, printed, error) == (130, '', 'error: interrupted\n')


def test_library_leaves_signals_alone():
  """Whoever imports the package as a library keeps Control-C as it is."""
  code = (
    'import signal, elas_jax.config.cli\n'
    'assert signal.getsignal(signal.SIGINT) is signal.default_int_handler\n'
  )
  process = start('-c', code)
  assert process.communicate(timeout=60)[1] == ''


DIES_WHILE_WRITING = """
import os, signal, time
from elas_jax.config.cli import run_command
from elas_jax.data import train_tokenizer
def fsync(descriptor):
  os.kill(os.getpid(), signal.{name})
  time.sleep(20)
os.fsync = fsync
run_command(lambda: train_tokenizer._write_atomically({path!r}, 'text'))
"""


@pytest.mark.parametrize('name, code', [('SIGTERM', 143), ('SIGHUP', 129), ('SIGINT', 130)])
def test_stopped_tokenizer_leaves_no_temporary_file(tmp_path, name, code):
  script = DIES_WHILE_WRITING.format(name=name, path=tmp_path / 'bpe.json')
  process = start('-c', f'from pathlib import PosixPath\n{script}')
  error = process.communicate(timeout=60)[1]
  assert process.returncode == code, error
  assert 'Traceback' not in error
  assert list(tmp_path.iterdir()) == []


def test_ignored_signals_stay_ignored(tmp_path):
  """A command that nohup started outlives its terminal."""
  code = (
    'import os, signal\n'
    'from elas_jax.common.interruption import cleaned_up\n'
    'with cleaned_up():\n'
    '  os.kill(os.getpid(), signal.SIGHUP)\n'
    'print("alive")\n'
  )
  ignore = 'import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); '
  process = start(
    '-c', f'{ignore}os.execv(sys.executable, [sys.executable, "-c", {code!r}])'
  )
  assert process.communicate(timeout=60)[0] == 'alive\n'


def test_full_disk_leaves_no_temporary_file(tmp_path, monkeypatch):
  def full(descriptor):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(train_tokenizer.os, 'fsync', full)
  with pytest.raises(UserError, match='^--output=.*No space left'):
    train_tokenizer._write_atomically(tmp_path / 'bpe.json', 'text')
  assert list(tmp_path.iterdir()) == []


def test_signal_in_a_callback_of_the_collector_is_not_lost():
  """Python drops what such a callback raises; JAX has one."""
  code = (
    'import gc, os, signal, sys\n'
    'from elas_jax.common.interruption import cleaned_up\n'
    'sys.unraisablehook = lambda _: print("dropped")\n'
    'def callback(phase, info):\n'
    '  if phase == "start":\n'
    '    os.kill(os.getpid(), signal.SIGTERM)\n'
    'gc.callbacks.append(callback)\n'
    'with cleaned_up():\n'
    '  gc.collect()\n'
    '  gc.callbacks.clear()\n'
    '  print("goes on")\n'
    'print("lost")\n'
  )
  process = start('-c', code)
  assert process.communicate(timeout=60)[0] == 'dropped\ngoes on\n'
  assert process.returncode == 143


def test_stopped_preparation_leaves_no_folder(tmp_path):
  code = (
    'import os, signal, time\n'
    'from elas_jax.data import cache\n'
    'def write(folder):\n'
    '  (folder / "data").touch()\n'
    '  os.kill(os.getpid(), signal.SIGTERM)\n'
    '  time.sleep(20)\n'
    f'from pathlib import PosixPath\ncache.make_folder({tmp_path!r}, "name", write)\n'
  )
  process = start('-c', code)
  process.communicate(timeout=60)
  assert process.returncode == 143
  assert [path.name for path in tmp_path.iterdir()] == ['name.lock']


PREPARES = """
import sys
from elas_jax.data import blocks
from elas_jax.data.corpus import Corpus
blocks.prepare(Corpus(**{fields!r}))
"""


@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGTERM])
def test_preparation_ends_with_its_parent(corpus, tmp_path, number):
  """The parent dies while its preparation waits for a lock, as it would for a long job."""
  small = Corpus(
    source='text_files',
    max_bad_share=0.01,
    tokenizer='',
    protocol='packed',
    sequence_length=16,
    cache_dir=str(tmp_path / 'cache'),
    processes=1,
    path=str(corpus),
    validation_share=0.2,
  )
  name = blocks._folder_name(small, list_source(small), blocks.load_tokenizer(''))
  lock = tmp_path / 'cache' / f'{name}.lock'
  lock.parent.mkdir(parents=True)
  with lock.open('w') as held:
    fcntl.flock(held, fcntl.LOCK_EX)
    process = start('-c', PREPARES.format(fields=vars(small)))
    assert 'waiting for another process' in process.stderr.readline()
    process.send_signal(number)
    # The preparation holds the other end of this pipe: it is closed when that has ended.
    _, error = process.communicate(timeout=30)
  assert error == ''
  assert process.returncode == -number
  assert not list(tmp_path.glob('cache/*/*.tmp-*'))


def test_signal_sets_the_flag_and_the_handlers_come_back():
  before = signal.getsignal(signal.SIGTERM)
  with train.stop_signals() as stop:
    assert not stop(1)
    signal.raise_signal(signal.SIGTERM)
    assert stop(2)
  assert signal.getsignal(signal.SIGTERM) is before
