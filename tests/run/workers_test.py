"""Processes that share work on one machine: locks, cores, what they print, their ends."""

import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

from elas_jax.common.errors import UserError
from elas_jax.run.workers import claimed, run_workers
from tests.conftest import ROOT

CORES = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_setaffinity') else 0
linux = pytest.mark.skipif(CORES < 2, reason='needs two cores that it can choose from')

# It starts two processes of a program that it is given.
PARENT = """
import sys
from elas_jax.run.workers import run_workers
run_workers(2, [sys.executable, '-c', *sys.argv[1:]])
"""

# It prints its core, and saves at a SIGTERM, after it has said so.
WORKER = """
import os, pathlib, signal, sys, time
from elas_jax.run.workers import WORKER, end_with_parent
folder, number = pathlib.Path(sys.argv[1]), os.environ[WORKER]

def save(signal, frame):
  time.sleep(0.1)
  print('saves', flush=True)
  (folder / f'saved_{number}').touch()
  sys.exit(3)

signal.signal(signal.SIGTERM, save)
signal.signal(signal.SIGINT, signal.SIG_IGN)
assert end_with_parent()
(folder / f'started_{number}').write_text(str(os.getpid()))
print('core', os.sched_getaffinity(0), flush=True)
time.sleep(20)
"""


@pytest.fixture
def python():
  """Starts a program; what still runs after the test is killed, and its workers end."""
  found = []

  def start(text, *arguments, **options) -> subprocess.Popen:
    pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.STDOUT, 'text': True}
    command = [sys.executable, '-c', text, *map(str, arguments)]
    found.append(subprocess.Popen(command, cwd=ROOT, **pipes, **options))
    return found[-1]

  yield start
  for process in found:
    process.kill()
    process.wait()
    process.stdout.close()


def is_gone(pid: int) -> bool:
  try:
    state = pathlib.Path(f'/proc/{pid}/stat').read_text()
  except FileNotFoundError:
    return True
  return state.rpartition(') ')[2].startswith('Z')  # ended, and nobody has asked how


def test_a_claim_keeps_others_out_until_its_process_is_killed(python, tmp_path):
  folder = tmp_path / 'locks'
  text = (
    'import pathlib, sys, time\nfrom elas_jax.run.workers import claimed\n'
    'with claimed(pathlib.Path(sys.argv[1]), "a") as mine: print(mine, flush=True); '
    'time.sleep(20)'
  )
  other = python(text, folder)
  assert other.stdout.readline() == 'True\n'
  for _ in range(2):
    with claimed(folder, 'a') as mine, claimed(folder, 'b') as another:
      assert (mine, another) == (False, True)
  other.kill()
  other.wait()
  with claimed(folder, 'a') as mine, claimed(folder, 'a') as again:
    assert (mine, again) == (True, False)
  with pytest.raises(ValueError, match='as it was'), claimed(folder, 'a'):
    raise ValueError('as it was')
  with claimed(folder, 'a') as mine:
    assert mine


def test_a_folder_of_locks_that_cannot_be_written_is_named(tmp_path):
  (tmp_path / 'file').touch()
  folder = tmp_path / 'file/locks'
  with (
    pytest.raises(UserError, match=f'^{folder}: cannot be written: Not a directory$'),
    claimed(folder, 'a'),
  ):
    pass


@linux
def test_each_worker_has_a_core_of_its_own_and_a_number(tmp_path, capfd):
  before = os.sched_getaffinity(0)
  text = (
    'import os, sys; print("core", *os.sched_getaffinity(0)); '
    'print("error", file=sys.stderr); sys.stdout.buffer.write(b"\\xff no end")'
  )
  run_workers(2, [sys.executable, '-c', text])
  out = capfd.readouterr().out
  cores = {n: int(core) for n, core in re.findall(r'\[(\d)\] core (\d+)\n', out)}
  assert cores == dict(zip('12', sorted(before)))
  assert out.count('] error\n') == 2 and out.count('] \ufffd no end') == 2
  assert os.sched_getaffinity(0) == before


def test_more_workers_than_cores_are_refused():
  cores = CORES or os.cpu_count()
  words = f'^--workers={cores + 1}: must be at most {cores}, the cores there are$'
  with pytest.raises(UserError, match=words):
    run_workers(cores + 1, ['there is no such command'])


@linux
def test_a_command_that_cannot_start_leaves_this_process_its_cores():
  before = os.sched_getaffinity(0)
  with pytest.raises(FileNotFoundError):
    run_workers(2, ['there is no such command'])
  assert os.sched_getaffinity(0) == before


@linux
def test_a_worker_that_fails_is_named_and_the_others_finish(tmp_path):
  text = (
    'import os, pathlib, sys, time\n'
    'if os.environ["ELAS_WORKER"] == "1": sys.exit(2)\n'
    'time.sleep(0.2); pathlib.Path(sys.argv[1], "finished").touch()'
  )
  words = '^ended early: worker 1 with 2; the same command continues$'
  with pytest.raises(UserError, match=words):
    run_workers(2, [sys.executable, '-c', text, str(tmp_path)])
  assert (tmp_path / 'finished').exists()


def started(python, folder, worker=WORKER, **options) -> tuple[subprocess.Popen, list[int]]:
  """The parent, and its two workers, which have printed."""
  parent = python(PARENT, worker, folder, **options)
  waiting = {'[1] core', '[2] core'}
  while waiting:
    line = parent.stdout.readline()
    assert line
    waiting.discard(line[:8])
  return parent, [int((folder / f'started_{n}').read_text()) for n in '12']


def check_saved(folder, pids):
  end = time.monotonic() + 10
  while not all(map(is_gone, pids)):
    assert time.monotonic() < end
    time.sleep(0.01)
  assert [(folder / f'saved_{number}').exists() for number in '12'] == [True, True]


@linux
def test_workers_of_a_killed_parent_save_and_end(python, tmp_path):
  parent, pids = started(python, tmp_path)
  parent.kill()
  parent.wait()
  parent.stdout.close()
  check_saved(tmp_path, pids)


@linux
def test_control_c_ends_all_and_what_they_say_is_shown(python, tmp_path):
  parent, pids = started(python, tmp_path, start_new_session=True)
  os.killpg(parent.pid, signal.SIGINT)  # as a terminal does
  out, _ = parent.communicate(timeout=10)
  assert '[1] saves\n' in out and '[2] saves\n' in out and 'KeyboardInterrupt' in out
  check_saved(tmp_path, pids)


@linux
def test_workers_save_and_end_when_nobody_reads_what_they_print(python, tmp_path):
  """As in `... | head -1`; a full pipe must not keep them waiting."""
  text = WORKER.replace("print('saves', flush=True)", "os.write(1, b'saves')")
  assert text != WORKER
  text = text.replace('time.sleep(20)', "while True: os.write(1, 1000 * b'x' + b'\\n')")
  parent, pids = started(python, tmp_path, text)
  parent.stdout.close()
  assert parent.wait(10)
  check_saved(tmp_path, pids)
