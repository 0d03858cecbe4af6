"""A run that is followed while it grows, is killed, goes on, or is damaged."""

import json
import math
import os

import pytest

from elas_jax.run.follow import CURVE, Followed
from elas_jax.run.metrics import MetricsWriter
from tests.conftest import ROOT

CONFIG = {
  'train': {'steps': 100, 'log_every': 10},
  'data': {'batch_size': 8, 'sequence_length': 50},
}


@pytest.fixture
def workdir(tmp_path):
  (tmp_path / 'config.json').write_text(json.dumps(CONFIG))
  add(tmp_path, {'run': {}})
  return tmp_path


def add(workdir, *lines, at=None):
  """Appends them, at a time of the file system."""
  path = workdir / 'metrics.jsonl'
  with path.open('a') as file:
    file.writelines(json.dumps(line) + '\n' for line in lines)
  if at is not None:
    os.utime(path, (at, at))


def followed(workdir):
  run = Followed(workdir)
  run.poll()
  return run


def step(number, **values):
  return {'step': number} | {name.replace('__', '/'): x for name, x in values.items()}


def test_only_what_is_added_is_read(workdir):
  add(workdir, *(step(i, train__loss=1.0) for i in range(1, 101)))
  run = followed(workdir)
  with (workdir / 'metrics.jsonl').open('r+b') as file:  # far before what was read last
    file.seek(30)
    file.write(b'no JSON')
  add(workdir, step(101, train__loss=0.5))
  run.poll()
  assert run.step == 101 and run.values['train/loss'] == (101, 0.5) and not run.damage
  assert 'line 2 is damaged' in followed(workdir).damage  # it is there for who reads anew


def test_a_poll_without_news_changes_nothing(workdir):
  run = followed(workdir)
  before = run.changes
  run.poll()
  assert run.changes == before == 1
  add(workdir, step(1))
  run.poll()
  assert run.changes == 2


def test_a_torn_line_waits_for_its_end(workdir):
  add(workdir, step(1, train__loss=3.0))
  path = workdir / 'metrics.jsonl'
  text = json.dumps(step(2, train__loss=2.0)) + '\n'
  path.write_text(path.read_text() + text[:9])
  run = followed(workdir)
  assert run.step == 1 and not run.damage
  with path.open('a') as file:
    file.write(text[9:])
  run.poll()
  assert run.values['train/loss'] == (2, 2.0) and not run.damage


def test_a_run_that_goes_on_takes_lines_back(tmp_path):
  first = MetricsWriter(tmp_path, 0, False)
  for number in (1, 2, 3, 4):
    first.write(number, {'train/loss': 8.0 / number})
  first.write(4, {'eval/loss': 2.5})
  first.close()
  run = followed(tmp_path)
  assert run.step == 4 and run.values['eval/loss'] == (4, 2.5) and len(run.curve) == 4
  second = MetricsWriter(tmp_path, 2, False)
  run.poll()
  assert run.step == 2 and 'eval/loss' not in run.values
  assert run.curve == [(1, 8.0), (2, 4.0)]
  second.write(3, {'train/loss': 7.0})
  second.close()
  run.poll()
  assert run.curve[2:] == [(3, 7.0)]


@pytest.mark.parametrize('lines', [3, 30])
def test_a_file_written_anew_in_its_place_is_noticed(workdir, lines):
  """By its size where that shrinks, and by what stands there where it does not."""
  path = workdir / 'metrics.jsonl'
  add(workdir, *(step(i, train__loss=1.0) for i in range(1, 11)))
  run, inode = followed(workdir), path.stat().st_ino
  path.write_text('{"run": {}}\n')
  add(workdir, *(step(i, train__loss=2.0) for i in range(1, lines + 1)))
  assert path.stat().st_ino == inode
  run.poll()
  assert run.curve == [(i, 2.0) for i in range(1, lines + 1)] and not run.damage


def test_files_come_and_go(tmp_path):
  run = followed(tmp_path)
  assert not run.begun and run.state(0.0, 1.0) == 'not begun'
  (tmp_path / 'config.json').write_text(json.dumps(CONFIG))
  run.poll()
  assert run.begun and run.step == 0 and run.field('train.steps') == 100
  add(tmp_path, {'run': {}}, step(5))
  (tmp_path / 'config.json').unlink()
  run.poll()
  assert run.begun and run.step == 5 and run.field('train.steps') is None
  (tmp_path / 'metrics.jsonl').unlink()
  run.poll()
  assert not run.begun and run.step == 0 and not run.damage


def test_a_run_given_more_steps(workdir):
  run = followed(workdir)
  more = CONFIG | {'train': {'steps': 12345}}
  (workdir / 'config.json').write_text(json.dumps(more))
  run.poll()
  assert run.field('train.steps') == 12345 and run.field('train.log_every') is None


@pytest.mark.parametrize(
  'broken', ['{"step": 2', '[2]', '{"loss": 1}', '\x00' * 9, '[' * 9**5]
)
def test_a_damaged_line_is_named_and_the_others_are_read(workdir, broken):
  add(workdir, step(1))
  with (workdir / 'metrics.jsonl').open('a') as file:
    file.write(broken + '\n')
  add(workdir, step(3, train__loss=1.0))
  run = followed(workdir)
  assert run.damage.startswith('metrics.jsonl: line 3 is damaged (')
  assert run.step == 3 and run.values['train/loss'] == (3, 1.0)
  with (workdir / 'metrics.jsonl').open('a') as file:
    file.write('?\n')
  run.poll()
  assert run.damage.endswith('and 1 more')


def test_other_damage_is_named(workdir):
  (workdir / 'config.json').write_text('{"train"')
  run = followed(workdir)
  assert run.damage.startswith('config.json is damaged (') and run.begun
  (workdir / 'config.json').write_text('[]')
  run.poll()
  assert run.damage == 'config.json is damaged (no fields in it)'
  (workdir / 'config.json').write_text(json.dumps(CONFIG))
  run.poll()
  assert not run.damage
  (workdir / 'metrics.jsonl').unlink()
  os.mkfifo(workdir / 'metrics.jsonl')  # to open it would wait for ever
  run.poll()
  assert run.damage == 'metrics.jsonl: cannot be read: it is no file'
  (workdir / 'metrics.jsonl').unlink()
  (workdir / 'metrics.jsonl').mkdir()
  run.poll()
  assert run.damage == 'metrics.jsonl: cannot be read: it is no file'


def test_values_that_are_no_numbers(workdir):
  values = {'train/loss': None, 'train/a': 10**400, 'train/b': 'words', 'train/c': [1]}
  add(workdir, {'step': 1, **values}, {'step': 2, 'train/loss': 2.0, 'note': 7})
  run = followed(workdir)
  assert math.isnan(run.values['train/a'].value) and run.curve == [(2, 2.0)]
  assert run.values.keys() == {'train/loss', 'train/a'} and run.note is None


def test_notes_and_thinned_curve(workdir):
  many = 3 * CURVE
  add(workdir, step(0, note='first'), *(step(i, train__loss=i) for i in range(many)))
  add(workdir, step(7, note='last'))
  run = followed(workdir)
  steps = [number for number, _ in run.curve]
  assert CURVE / 2 <= len(steps) <= CURVE and run.note == (7, 'last')
  assert steps[0] == 0 and steps[-1] > many - 8
  gaps = {after - before for before, after in zip(steps, steps[1:])}
  assert max(gaps) <= 4


@pytest.mark.parametrize('unit, in_row', [('tokens', 50), ('examples', 1)])
def test_time_left_by_the_speed(workdir, unit, in_row):
  add(workdir, {'step': 40, f'train/{unit}_per_second': 25.0}, at=1000)
  run = followed(workdir)
  # 60 steps of 8 rows, and 7 seconds of these have gone.
  assert run.seconds_left(1007) == pytest.approx(60 * 8 * in_row / 25 - 7)
  assert run.seconds_left(1e9) == 0


def test_time_left_by_the_lines_that_came(workdir):
  add(workdir, {'step': 10, 'train/tokens_per_second': 1e9}, at=1000)
  run = followed(workdir)
  add(workdir, {'step': 20}, at=1050)
  run.poll()
  add(workdir, {'step': 20, 'eval/loss': 1.0}, at=1060)
  run.poll()
  add(workdir, {'step': 30}, at=1100)
  run.poll()
  assert run.seconds_per_step() == 5 and run.seconds_left(1100) == 350


def test_no_time_left_without_a_speed(workdir):
  add(workdir, {'step': 10, 'train/tokens_per_second': None})
  assert followed(workdir).seconds_left(0.0) is None
  (workdir / 'config.json').write_text('{"train": 3, "data": {"batch_size": true}}')
  add(workdir, {'step': 11, 'train/tokens_per_second': 3.0})
  assert followed(workdir).seconds_left(0.0) is None


@pytest.mark.parametrize(
  'lines, age, expected',
  [
    ([], 99, 'running'),  # it compiles
    ([step(10)], 99, 'running'),
    ([step(10)], 101, 'stalled'),
    ([step(10)], 1201, 'stopped'),
    # 8 rows of 50 tokens are 20 s, and lines come after ten steps.
    ([step(10, train__tokens_per_second=20.0)], 1999, 'running'),
    ([step(10, train__tokens_per_second=20.0)], 2001, 'stalled'),
    ([step(100)], 1, 'running'),  # the last evaluation is still to come
    ([step(100, eval__loss=1.0)], 9999, 'finished'),
    ([step(50, eval__loss=1.0)], 1, 'running'),
    ([step(50, eval__loss=None)], 1, 'stopped'),
    ([step(50)], -30, 'running'),  # the clock of the file system is ahead
  ],
)
def test_states(workdir, lines, age, expected):
  add(workdir, *lines, at=5000)
  assert followed(workdir).state(5000 + age, 100) == expected


def test_runs_of_older_versions():
  for config in sorted((ROOT / 'tests/fixtures').rglob('*/config.json')):
    run = followed(config.parent)
    # They stand at their first checkpoint.
    assert 0 < run.step < run.field('train.steps') and not run.damage, config
    assert run.state(1e12, 1) == 'stopped' and len(run.curve) == run.step, config
    assert run.seconds_left(0.0) or 'image_data' in run.config, config
