"""metrics.jsonl: its first line, what a resumed run keeps, and what a kill leaves."""

import json
import math
import os
import pathlib
import platform
import struct
import subprocess
import sys
import types

import jax
import pytest

from elas_jax.common.errors import UserError
from elas_jax.run import metrics
from elas_jax.run.metrics import MetricsWriter, describe_run, read_metrics

RESULTS = ('experiments', 'benchmarks')  # whose results may change


def write(folder, steps, start=0):
  writer = MetricsWriter(folder, start, False)
  for step in steps:
    writer.write(step, {'train/loss': step / 8})
  writer.close()


def steps_in(folder):
  return [line['step'] for line in read_metrics(folder)[1]]


def test_first_line_describes_the_run(tmp_path):
  write(tmp_path, [1, 2])
  first, *rest = map(json.loads, (tmp_path / 'metrics.jsonl').read_text().splitlines())
  assert first['run'] == describe_run() | {'time': first['run']['time']}
  assert first['run']['versions']['jax'] == jax.__version__
  assert first['run']['devices'] == 4
  assert rest == [{'step': 1, 'train/loss': 0.125}, {'step': 2, 'train/loss': 0.25}]
  assert read_metrics(tmp_path) == (first['run'], rest)


def test_commit_is_of_this_project(monkeypatch, tmp_path):
  """Not of the repository of somebody who has installed it in a folder there."""
  identity = ['-c', 'user.name=a', '-c', 'user.email=a@b']
  for words in (['init', '--quiet'], [*identity, 'commit', '--allow-empty', '-qm', 'a']):
    subprocess.run(['git', '-C', tmp_path, *words], check=True)
  installed = tmp_path / 'venv/elas_jax/run/metrics.py'
  installed.parent.mkdir(parents=True)
  installed.touch()
  monkeypatch.setattr(metrics, '__file__', str(installed))
  assert describe_run()['commit'] == 'unknown'


def test_commit_is_unknown_without_git(monkeypatch, tmp_path):
  monkeypatch.setenv('PATH', str(tmp_path))
  assert describe_run()['commit'] == 'unknown'


def test_commit_is_modified_by_all_but_results(monkeypatch, tmp_path):
  identity = ['-c', 'user.name=a', '-c', 'user.email=a@b']
  git = lambda *words: subprocess.run(
    ['git', '-C', tmp_path, *identity, *words], check=True
  )
  results = [tmp_path / f'{name}/results/a.json' for name in RESULTS]
  source, module = tmp_path / 'configs/a.py', tmp_path / 'elas_jax/run/metrics.py'
  for path in (*results, source, module):
    path.parent.mkdir(parents=True)
    path.write_text('1')
  git('init', '--quiet')
  git('add', '.')
  git('commit', '--quiet', '-m', 'a')
  monkeypatch.setattr(metrics, '__file__', str(module))
  commit = describe_run()['commit']
  assert len(commit) == 40
  for path in results:
    path.write_text('2')
    assert describe_run()['commit'] == commit, path
  source.write_text('2')
  assert describe_run()['commit'] == f'{commit}-modified'


def test_machine_is_its_accelerators_or_its_cores(monkeypatch):
  fake = lambda platform, kind: types.SimpleNamespace(platform=platform, device_kind=kind)
  read = lambda text: monkeypatch.setattr(pathlib.Path, 'read_text', lambda path: text)
  monkeypatch.setattr(jax, 'devices', lambda: [fake('gpu', 'NVIDIA H200')] * 8)
  assert metrics.machine() == '8 x NVIDIA H200'
  monkeypatch.setattr(jax, 'devices', lambda: [fake('cpu', 'cpu')] * 4)
  monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: {0, 3}, raising=False)
  monkeypatch.setattr(pathlib.Path, 'exists', lambda path: str(path) == '/proc/cpuinfo')
  read('processor\t: 0\nmodel name\t: AMD EPYC\nprocessor\t: 1\nmodel name\t: AMD EPYC\n')
  assert metrics.machine() == '2 cores of AMD EPYC'
  read('processor\t: 0\n')  # as on ARM
  monkeypatch.setattr(platform, 'machine', lambda: 'aarch64')
  assert metrics.machine() == '2 cores of aarch64'
  monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: {3})  # a worker's
  assert metrics.machine() == 'a core of aarch64'
  monkeypatch.delattr(os, 'sched_getaffinity')  # as on macOS
  monkeypatch.setattr(os, 'cpu_count', lambda: 8)
  assert metrics.machine() == '8 cores of aarch64'


def test_resuming_drops_later_lines_and_keeps_the_first(tmp_path, monkeypatch):
  write(tmp_path, range(1, 7))
  run, _ = read_metrics(tmp_path)
  monkeypatch.setattr(metrics, 'describe_run', lambda: {'commit': 'another'})
  write(tmp_path, [4, 5], start=3)
  assert steps_in(tmp_path) == [1, 2, 3, 4, 5]
  now = read_metrics(tmp_path)[0]
  assert {name: x for name, x in now.items() if name != 'continued'} == run
  write(tmp_path, [], start=0)
  assert steps_in(tmp_path) == []
  assert read_metrics(tmp_path)[0] == now


def test_another_commit_or_device_that_goes_on_is_noted(tmp_path, monkeypatch):
  as_now = lambda **fields: monkeypatch.setattr(
    metrics, 'describe_run', lambda: {'time': '9', 'commit': 'a', 'device': 'cpu'} | fields
  )
  as_now()
  write(tmp_path, [1])
  write(tmp_path, [2], start=1)
  assert 'continued' not in read_metrics(tmp_path)[0]
  as_now(commit='b')
  write(tmp_path, [3], start=2)
  as_now(commit='b', device='gpu')
  write(tmp_path, [4], start=3)
  write(tmp_path, [5], start=4)
  run, _ = read_metrics(tmp_path)
  assert run['commit'] == 'a'
  assert run['continued'] == [
    {'step': 2, 'time': '9', 'commit': 'b'},
    {'step': 3, 'time': '9', 'device': 'gpu'},
  ]


def test_lost_lines_are_said_to_be_lost(tmp_path, capsys):
  write(tmp_path, [8, 9], start=7)
  said = 'metrics.jsonl: the lines of steps 1 to 7 are lost'
  assert said in capsys.readouterr().err
  assert read_metrics(tmp_path)[1][0] == {'step': 7, 'note': said}
  assert steps_in(tmp_path) == [7, 8, 9]
  write(tmp_path, [10], start=9)
  assert not capsys.readouterr().err
  assert steps_in(tmp_path) == [7, 8, 9, 10]


@pytest.mark.parametrize('cut', [1, 5, 12])
def test_cut_last_line_is_not_read_and_dropped(tmp_path, cut):
  write(tmp_path, [1, 2, 3])
  path = tmp_path / 'metrics.jsonl'
  path.write_bytes(path.read_bytes()[:-cut])
  assert steps_in(tmp_path) == [1, 2]
  write(tmp_path, [3, 4], start=3)
  assert steps_in(tmp_path) == [1, 2, 3, 4]


@pytest.mark.parametrize('content', ['', '{"run": {"comm'])
def test_cut_first_line_is_written_anew(tmp_path, content):
  (tmp_path / 'metrics.jsonl').write_text(content)
  write(tmp_path, [1])
  assert steps_in(tmp_path) == [1]
  assert 'commit' in read_metrics(tmp_path)[0]


BROKEN = {
  b'': 'Expecting value',
  b'{"step": 2, "tra': 'Unterminated string',
  b'{"step": 2}{"step": 3}': 'Extra data',
  b'\0\0\0\0': 'Expecting value',
  b'\xf5': "can't decode byte 0xf5",
  b'[2]': "no 'step' in it",
  b'{"stop": 2}': "no 'step' in it",
  b'{"step": "2"}': "no 'step' in it",
}


@pytest.mark.parametrize('broken', BROKEN)
def test_broken_line_in_the_middle_is_named(tmp_path, broken):
  write(tmp_path, [1, 2, 3])
  path = tmp_path / 'metrics.jsonl'
  lines = path.read_bytes().splitlines()
  lines[2] = broken
  path.write_bytes(b'\n'.join(lines) + b'\n')
  before = path.read_bytes()
  for use in (read_metrics, lambda folder: MetricsWriter(folder, 3, False)):
    with pytest.raises(UserError, match=f'{path}: line 3 is damaged .*{BROKEN[broken]}'):
      use(tmp_path)
  assert path.read_bytes() == before


@pytest.mark.parametrize('broken', BROKEN)
def test_broken_last_line_is_left_out_and_it_is_said(tmp_path, broken, capsys):
  write(tmp_path, [1, 2])
  path = tmp_path / 'metrics.jsonl'
  path.write_bytes(path.read_bytes() + broken + b'\n')
  write(tmp_path, [3], start=2)
  said = capsys.readouterr().err
  assert f'{path}: the last line is left out (' in said
  assert BROKEN[broken] in said
  assert steps_in(tmp_path) == [1, 2, 3]
  assert capsys.readouterr().err == ''


def test_broken_description_is_named(tmp_path):
  write(tmp_path, [1, 2])
  path = tmp_path / 'metrics.jsonl'
  path.write_text(path.read_text().replace('"run"', '"ruin"'))
  with pytest.raises(UserError, match="line 1 is damaged .no 'run' in it"):
    read_metrics(tmp_path)


def test_not_finite_becomes_null(tmp_path):
  writer = MetricsWriter(tmp_path, 0, False)
  writer.write(1, {'a': math.nan, 'b': math.inf, 'c': -math.inf, 'd': jax.numpy.ones(())})
  writer.close()
  text = (tmp_path / 'metrics.jsonl').read_text().splitlines()[1]
  assert text == '{"step": 1, "a": null, "b": null, "c": null, "d": 1.0}'


def test_json_is_what_its_standard_allows():
  value = {'a': [math.inf, (1, math.nan)], 'b': {'c': -math.inf, 'd': 0.5}, 'e': 'NaN'}
  found = metrics.strict_json(value)
  assert found == '{"a": [null, [1, null]], "b": {"c": null, "d": 0.5}, "e": "NaN"}'


def test_line_is_in_the_file_as_soon_as_it_is_written(tmp_path):
  writer = MetricsWriter(tmp_path, 0, False)
  writer.write(1, {})
  assert steps_in(tmp_path) == [1]
  writer.close()


def test_failing_rewrite_leaves_the_old_file(tmp_path, monkeypatch):
  write(tmp_path, [1, 2, 3])
  before = (tmp_path / 'metrics.jsonl').read_bytes()

  def fail(*_):
    raise OSError('cannot rename')

  monkeypatch.setattr(os, 'replace', fail)
  with pytest.raises(OSError, match='cannot rename'):
    MetricsWriter(tmp_path, 1, False)
  assert (tmp_path / 'metrics.jsonl').read_bytes() == before


def test_other_processes_write_nothing(tmp_path, monkeypatch):
  monkeypatch.setattr(jax, 'process_index', lambda: 1)
  write(tmp_path, [1, 2])
  assert list(tmp_path.iterdir()) == []


def test_folder_without_metrics_is_named(tmp_path):
  with pytest.raises(UserError, match=f'{tmp_path}.*metrics.jsonl'):
    read_metrics(tmp_path)


def test_tensorboard_without_its_package_names_the_extra(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'tensorboardX', None)
  with pytest.raises(UserError, match=r'train.tensorboard=True.*elas-jax\[tensorboard\]'):
    MetricsWriter(tmp_path, 0, True)


def test_tensorboard_gets_the_values_and_forgets_later_steps(tmp_path):
  pytest.importorskip('tensorboardX')
  folder = tmp_path / 'tensorboard'
  for start, steps in ((0, [1, 2, 3]), (2, [3])):
    writer = MetricsWriter(tmp_path, start, True)
    for step in steps:
      writer.write(step, {'train/loss': step * 10.0 + start})
    writer.close()
    # Their names hold the second, and the next writer would take the same.
    for file in folder.glob('events*'):
      file.rename(folder / f'{start}')
  assert _events(folder / '0') == [('start', 1), (1, 10.0), (2, 20.0), (3, 30.0)]
  # TensorBoard forgets what it read of this step and later ones at the start of a run.
  assert _events(folder / '2') == [('start', 3), (3, 32.0)]


def _events(path):
  from tensorboardX.proto.event_pb2 import Event, SessionLog

  found, data = [], path.read_bytes()
  while data:  # length, its checksum, the event, its checksum
    (length,) = struct.unpack('<Q', data[:8])
    event = Event.FromString(data[12 : 12 + length])
    data = data[16 + length :]
    if event.session_log.status == SessionLog.START:
      found.append(('start', event.step))
    found += [(event.step, value.simple_value) for value in event.summary.value]
  return found
