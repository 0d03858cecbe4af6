"""A run's folder and what it starts: few files, what is there after a kill, packages."""

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
import zipfile

import pytest

from pallas_kernels.bench.environment import ROOT
from pallas_kernels.bench.run import MOST_FILES, Options, Run


def names_in(archive):
  with tarfile.open(archive) as opened:
    return {name.removeprefix('rest/') for name in opened.getnames()}


def files_of(folder):
  return {path.name for path in folder.rglob('*') if path.is_file()}


def test_never_more_than_eight_files(tmp_path):
  with Run(tmp_path, seconds=60) as run:
    run.log.write_text('File "/usr/lib/python3/x.py"\n')
    (tmp_path / 'curves').mkdir()
    for number in range(5):
      (tmp_path / f'steps_{number}.json').write_text('{}')
      (tmp_path / f'curves/{number}.png').write_text('')
    run.pack()
    assert len(files_of(tmp_path)) == MOST_FILES == 8
    run.pack()  # what is packed stays so
  files = files_of(tmp_path)
  assert {'gpu_check.json', 'gpu_check.md', 'rest.tar.gz', 'steps_4.json'} <= files
  assert len(files) == 8
  assert {'curves/1.png', 'curves/4.png', 'workers.log'} <= names_in(
    tmp_path / 'rest.tar.gz'
  )


def test_results_are_there_when_it_is_killed(tmp_path):
  """By SIGKILL, so that nothing can be tidied up."""
  code = f"""
import pathlib, time
from pallas_kernels.bench.run import Run
run = Run(pathlib.Path({str(tmp_path)!r}), seconds=60)
run.record['checks']['first'] = {{'passed': True}}
run.save()
print('saved', flush=True)
time.sleep(60)
"""
  words, environment = [sys.executable, '-c', code], {**os.environ, 'PYTHONPATH': str(ROOT)}
  with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE) as process:
    assert process.stdout.readline() == b'saved\n'
    process.send_signal(signal.SIGKILL)
  record = json.loads((tmp_path / 'gpu_check.json').read_text())
  assert record['checks'] == {'first': {'passed': True}}
  assert 'First contact: 1 of 1 passed' in (tmp_path / 'gpu_check.md').read_text()


def test_commands_that_fail_hang_or_have_no_device(tmp_path):
  (tmp_path / 'out').mkdir()
  with Run(tmp_path / 'out', seconds=60) as run:
    soon = lambda seconds: time.monotonic() + seconds
    run.command('sleeps', ['timeit', '-n1', 'while True: pass'], soon(1))
    run.command('fails', ['no_such_module'], soon(20))
    refuses = 'tests.pallas_kernels.fake_device'
    run.command('lacks', [refuses, 'not available: no GPU here'], soon(20))
    run.command('refuses', [refuses, 'bad option'], soon(20))
    run.command('works', ['timeit', '-n1', '-r1', 'pass'], soon(20))
  steps = {k: x['verdict'] for k, x in run.record['steps'].items()}
  assert steps == {
    'sleeps': 'stopped after 1 s',
    'fails': 'failed, status 1',
    'lacks': 'not available: no GPU here',
    'refuses': 'failed, status 2',
    'works': 'passed',
  }
  text = (tmp_path / 'out/gpu_check.md').read_text()
  assert 'No module named no_such_module' in text
  assert text.splitlines()[-1].startswith('| works | passed |')


@pytest.fixture
def wheels(tmp_path):
  """A folder with a package of one module."""
  folder = tmp_path / 'wheels'
  folder.mkdir()
  about = 'said-1.0.dist-info'
  with zipfile.ZipFile(folder / 'said-1.0-py3-none-any.whl', 'w') as wheel:
    wheel.writestr('said_in_a_wheel.py', 'print("from a wheel")')
    wheel.writestr(f'{about}/METADATA', 'Metadata-Version: 2.1\nName: said\nVersion: 1.0\n')
    wheel.writestr(
      f'{about}/WHEEL', 'Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n'
    )
    wheel.writestr(f'{about}/RECORD', '')
  return folder


def test_commands_find_the_wheels(tmp_path, wheels):
  options = Options(wheels=wheels)
  with Run(tmp_path / 'out', seconds=60, options=options) as run:
    run.command('says', ['said_in_a_wheel'], time.monotonic() + 30)
    path = run._with_packages()['PYTHONPATH'].split(os.pathsep)
  assert run.record['steps']['says']['last_lines'] == ['from a wheel']
  assert path[0] == str(ROOT) and path[-1] == str(run.packages)


def test_a_broken_wheel_is_told_in_a_line(tmp_path, wheels):
  (wheels / 'broken-1.0-py3-none-any.whl').write_text('no archive')
  with Run(tmp_path / 'out', seconds=60, options=Options(wheels=wheels)) as run:
    run.command('says', ['said_in_a_wheel'], time.monotonic() + 30)
  verdict = run.record['steps']['says']['verdict']
  assert verdict.startswith('failed: --wheels: ERROR') and 'broken' in verdict


def test_two_versions_of_a_wheel_are_named(tmp_path, wheels):
  """Not by the last line of pip, which is where to read about conflicts."""
  with zipfile.ZipFile(wheels / 'said-2.0-py3-none-any.whl', 'w') as wheel:
    about = 'said-2.0.dist-info'
    wheel.writestr(f'{about}/METADATA', 'Metadata-Version: 2.1\nName: said\nVersion: 2.0\n')
    wheel.writestr(f'{about}/WHEEL', 'Wheel-Version: 1.0\nTag: py3-none-any\n')
    wheel.writestr(f'{about}/RECORD', '')
  with Run(tmp_path / 'out', seconds=60, options=Options(wheels=wheels)) as run:
    run.command('says', ['said_in_a_wheel'], time.monotonic() + 30)
  verdict = run.record['steps']['says']['verdict']
  assert verdict.startswith('failed: --wheels: ERROR') and 'said 1.0' in verdict
