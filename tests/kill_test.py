"""A run that is killed again and again ends like one that nobody disturbed."""

import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from elas_jax.run.checkpoint import steps
from tests.finished_runs import computed, final_params

ROOT = pathlib.Path(__file__).parents[1]
STEPS = 150
TEXT = {'data.source.path': '{0}'}


MIXED = {
  'data.source': 'mixture',
  'data.source.sources': 'a=text_files:{0}/[0-2]*.txt,b=text_files:{0}/[3-9]*.txt',
  'data.source.phases': 'a=0.9,b=0.1 | 0.5: a=0.3,b=0.7',
}


def start(workdir, folder, source=TEXT):
  """The training command, on one device; its output goes to files beside the workdir."""
  overrides = {
    'model.width': 32,
    'model.layers': 1,
    'model.feed_forward_width': 64,
    'model.linear.rank': 8,
    'data.cache_dir': folder / 'cache',
    'data.sequence_length': 32,
    'data.batch_size': 8,
    'data.processes': 1,
    'train.steps': STEPS,
    'train.log_every': 1,
    'train.compilation_cache': folder / 'compiled',
    'checkpoint.every': 7,
    'eval.every': 20,
    'eval.units': 512,
    'eval.batch_size': 4,
    'eval.sample_tokens': 0,
  }
  overrides |= {name: value.format(folder / 'corpus') for name, value in source.items()}
  flags = [f'--config.{name}={value}' for name, value in overrides.items()]
  command = [sys.executable, '-m', 'elas_jax.train', '--config=configs/text.py']
  with (folder / 'stdout').open('w') as out, (folder / 'stderr').open('w') as err:
    return subprocess.Popen(
      [*command, *flags, f'--workdir={workdir}'],
      cwd=ROOT,
      env=os.environ | {'JAX_PLATFORMS': 'cpu', 'JAX_NUM_CPU_DEVICES': '1'},
      stdout=out,
      stderr=err,
    )


def finish(process, folder):
  """Waits for the process; returns its exit code and what it printed."""
  code = process.wait(timeout=120)
  assert (folder / 'stderr').read_text() == ''
  return code, (folder / 'stdout').read_text()


def wait_until(condition, process):
  while not condition():
    assert process.poll() is None, 'the run ended before it could be stopped'
    time.sleep(0.002)


def logged_steps(workdir):
  """Lines of metrics.jsonl behind the first, 0 before there is a file."""
  path = workdir / 'metrics.jsonl'
  return path.read_bytes().count(b'\n') - 1 if path.exists() else 0


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A corpus, and a run that nobody disturbed beside it."""
  folder = tmp_path_factory.mktemp('kill')
  (folder / 'corpus').mkdir()
  words = ['alpha', 'beta', 'gamma', 'delta', 'return', 'import', 'self', 'None']
  choice = random.Random(0)
  for number in range(40):
    text = ' '.join(choice.choices(words, k=80))
    (folder / f'corpus/{number}.txt').write_text(text)
  code, printed = finish(start(folder / 'whole', folder), folder)
  assert code == 0, printed
  return folder


@pytest.mark.conformance
def test_killed_run_ends_like_an_undisturbed_one(folder):
  seed = random.randrange(1 << 32)
  print(f'moments of the kills: random.Random({seed})')
  moments = random.Random(seed)
  workdir = folder / 'parts'

  # A polite request while the first step is compiled: that step is done and saved.
  process = start(workdir, folder)
  wait_until((workdir / 'config.json').exists, process)
  process.send_signal(signal.SIGTERM)
  code, printed = finish(process, folder)
  assert code == 0
  assert 'stopped after step 1, saved; the same command continues' in printed
  assert steps(workdir, 'workdir') == [1]

  for until in (moments.randint(2, 40), moments.randint(60, 100)):
    process = start(workdir, folder)
    wait_until(lambda until=until: logged_steps(workdir) > until, process)
    time.sleep(moments.uniform(0, 0.05))
    process.kill()
    assert finish(process, folder)[0] == -signal.SIGKILL

  process = start(workdir, folder)
  wait_until(lambda: logged_steps(workdir) > moments.randint(101, 120), process)
  process.send_signal(signal.SIGTERM)
  code, printed = finish(process, folder)
  assert code == 0
  assert 'continuing after step ' in printed
  stopped = int(re.search(r'stopped after step (\d+), saved', printed)[1])
  assert steps(workdir, 'workdir')[-1] == stopped < STEPS
  assert computed(workdir)[-1]['step'] == stopped

  code, printed = finish(start(workdir, folder), folder)
  assert code == 0
  assert f'continuing after step {stopped}\n' in printed
  assert computed(workdir) == computed(folder / 'whole')
  jax.tree.map(
    np.testing.assert_array_equal, final_params(workdir), final_params(folder / 'whole')
  )


@pytest.mark.conformance
def test_a_run_that_is_killed_in_the_second_phase_of_a_mixture(folder):
  for until in (20, 2 * STEPS // 3):
    process = start(folder / 'mixed', folder, MIXED)
    wait_until(lambda until=until: logged_steps(folder / 'mixed') > until, process)
    process.kill()
    assert finish(process, folder)[0] == -signal.SIGKILL
  code, printed = finish(start(folder / 'mixed', folder, MIXED), folder)
  assert code == 0
  assert int(re.search(r'continuing after step (\d+)', printed)[1]) > STEPS // 2
  assert finish(start(folder / 'whole_mixed', folder, MIXED), folder)[0] == 0
  assert computed(folder / 'mixed') == computed(folder / 'whole_mixed')
  equal = np.testing.assert_array_equal
  jax.tree.map(equal, final_params(folder / 'mixed'), final_params(folder / 'whole_mixed'))
