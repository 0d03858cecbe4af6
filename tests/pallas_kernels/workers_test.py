"""Processes that hang or die: what is told, what is skipped, and in which order."""

import os
import pathlib
import time

import pytest

from pallas_kernels.bench.workers import (
  Worker,
  call_skipping,
  note,
  run_all,
  without_folders,
)

HERE = 'tests.pallas_kernels.workers_test'
LONG = 60


def stumble(skip):
  """Runs in a worker: of three parts one never ends, one ends the process."""
  for part in ('hangs', 'dies', 'works'):
    if part in skip:
      continue
    note(part)
    if part == 'hangs':
      time.sleep(LONG)
    if part == 'dies':
      os._exit(3)
  return 'came through'


def run_after_compiling(slowly: bool):
  """Its first part may take long, its second says that it may not."""
  note('compiling')
  time.sleep(1.5)
  note('running', 1)
  time.sleep(LONG if slowly else 0)
  note('comparing')
  time.sleep(1.5)
  return 'done'


def wait_for(path: str):
  while path and not pathlib.Path(path).exists():
    time.sleep(0.01)
  return path


def hang_or_not(op: str, number: int):
  if op == 'hangs':
    note('running', 1)
    time.sleep(LONG)
  return number


def environment(name: str):
  return os.environ.get(name)


def test_a_part_that_hangs_or_dies_is_left_out():
  with Worker() as worker:
    end = time.monotonic() + LONG
    reply, failed = call_skipping(
      worker, f'{HERE}:stumble', 6, end, known={'hangs': 'before'}
    )
    assert reply == {'result': 'came through'}
    assert failed == {'hangs': 'before', 'dies': 'the process ended with status 3'}
    hung = worker.call(f'{HERE}:stumble', 1, skip=[])
    assert hung == {'failed': 'no answer within 1 s; stopped', 'during': 'hangs'}
    assert worker.call(f'{HERE}:stumble', 9, 0.0, skip=[])['failed'] == 'no time was left'


@pytest.mark.conformance
def test_a_note_says_how_long_to_wait_for_the_next_sign():
  with Worker() as worker:
    call = lambda slowly: worker.call(f'{HERE}:run_after_compiling', 50, slowly=slowly)
    assert call(True) == {'failed': 'no answer within 1 s; stopped', 'during': 'running'}
    assert call(False) == {'result': 'done'}  # what is after the run has all the time again


def test_results_come_as_they_are_ready(tmp_path):
  """The first task ends only after the second one's result was seen."""
  seen = tmp_path / 'seen'
  tasks, found = [{'path': str(seen)}, {'path': ''}], []
  end = time.monotonic() + LONG
  for task, reply in run_all(f'{HERE}:wait_for', tasks, 30, end, workers=2):
    found.append((task, reply))
    seen.touch()
  assert found == [(task, {'result': task['path']}) for task in tasks[::-1]]


def test_after_two_hangs_of_an_operation_the_rest_of_it_is_skipped():
  tasks = [{'op': 'hangs', 'number': i} for i in range(4)] + [{'op': 'works', 'number': 4}]
  end = time.monotonic() + LONG
  function, op_of = f'{HERE}:hang_or_not', lambda task: task['op']
  replies = [r for _, r in run_all(function, tasks, 30, end, workers=1, op_of=op_of)]
  assert [reply.get('failed') for reply in replies] == [
    *['no answer within 1 s; stopped'] * 2,
    *['skipped: 2 checks of hangs hung'] * 2,
    None,
  ]


def test_who_stops_waiting_waits_for_no_task(tmp_path):
  tasks = [{'path': ''}, {'path': str(tmp_path / 'never')}]
  end = time.monotonic() + LONG
  replies = run_all(f'{HERE}:wait_for', tasks, LONG, end, workers=2)
  assert next(replies)[1] == {'result': ''}
  before = time.monotonic()
  replies.close()
  assert time.monotonic() - before < LONG / 2


def test_a_worker_has_what_its_environment_lacks():
  with Worker(more={'MOSAIC_GPU_DUMP_TO': '/somewhere'}) as worker:
    call = lambda name: worker.call(f'{HERE}:environment', 9, name=name)['result']
    assert call('MOSAIC_GPU_DUMP_TO') == '/somewhere'
    assert call('XLA_PYTHON_CLIENT_PREALLOCATE') == 'false'


def test_no_folders_in_what_is_kept():
  text = (
    'File "/usr/lib/python3/site-packages/jax/x.py", line 3: 1/2, and/or, jax/_src/y.py'
  )
  assert without_folders(text) == 'File "x.py", line 3: 1/2, and/or, jax/_src/y.py'
