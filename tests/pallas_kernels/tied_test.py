"""What runs tied to its parent: it ends with it, and is as if it were run alone."""

import os
import signal
import subprocess
import sys
import time

import pytest

from pallas_kernels.bench.environment import ROOT
from pallas_kernels.bench.tied import tied

ENVIRONMENT = {**os.environ, 'PYTHONPATH': str(ROOT)}
COMMAND = """
import pathlib, time
from pallas_kernels.bench.run import Run
run = Run(pathlib.Path({folder!r}), seconds=60)
run.command('sleeps', ['tests.pallas_kernels.tied_test', {pid!r}], time.monotonic() + 60)
"""
TRAINING = """
import pathlib, time
from benchmarks import gpu_proxy
gpu_proxy.TRAIN = 'tests.pallas_kernels.tied_test'
gpu_proxy.Training([{pid!r}], pathlib.Path({folder!r}, 'run'))
time.sleep(60)
"""


def wait(condition):
  end = time.monotonic() + 30
  while not condition():
    assert time.monotonic() < end
    time.sleep(0.05)


def runs(pid):
  try:
    os.kill(pid, 0)
  except ProcessLookupError:
    return False
  return True


def assert_ends_with_its_parent(code, tmp_path):
  path = tmp_path / 'pid'
  words = [sys.executable, '-c', code.format(folder=str(tmp_path), pid=str(path))]
  with subprocess.Popen(words, env=ENVIRONMENT) as process:
    wait(lambda: path.exists() and path.read_text().endswith('\n'))
    process.send_signal(signal.SIGKILL)
  wait(lambda: not runs(int(path.read_text())))


def test_a_command_ends_with_its_parent(tmp_path):
  assert_ends_with_its_parent(COMMAND, tmp_path)


@pytest.mark.conformance
def test_a_training_run_ends_with_its_parent(tmp_path):
  assert_ends_with_its_parent(TRAINING, tmp_path)


def test_it_has_its_words_and_its_status():
  words = tied('tests.pallas_kernels.fake_device', 'one', '--two=3')
  done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True)
  assert (done.returncode, done.stdout) == (2, 'one --two=3\n')


if __name__ == '__main__':
  with open(sys.argv[1], 'w') as file:
    file.write(f'{os.getpid()}\n')
  time.sleep(60)
