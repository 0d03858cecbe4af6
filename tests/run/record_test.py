"""The file of recorded runs: what it keeps, and who may read it and add to it."""

import dataclasses
import fcntl
import functools
import json
import os
import pathlib
import re
import resource
import threading
import traceback
import warnings

import pytest

from configs import images
from elas_jax.common.errors import UserError
from elas_jax.config.config import to_json
from elas_jax.config.migrate import VERSION
from elas_jax.config.parsing import parse
from elas_jax.run.record import SIZES, Recorded, append, line_of, portable, read


@functools.cache
def simple_config() -> dict:
  """Of a network on digits, as it is stored."""
  return portable(json.loads(to_json(parse(images.get_config('digits,mlp')))))


def made(seed: int, **fields) -> Recorded:
  """A small finished run."""
  config = simple_config() | {'seed': seed}
  return Recorded(f'{seed:012d}', config, 'finished', values={'eval/loss': 1.5}, **fields)


def seeds(runs) -> list[int]:
  return [run.config['seed'] for run in runs]


@pytest.fixture
def path(tmp_path) -> pathlib.Path:
  """A record of three runs."""
  path = tmp_path / 'results/runs.jsonl'
  for seed in range(3):
    append(path, made(seed))
  return path


def in_processes(count, work) -> list[int]:
  """Exit codes of `work(number)` in so many forks of this process."""
  pids = []
  for number in range(count):
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')  # that threads of JAX are not there in a fork
      pid = os.fork()
    if not pid:
      try:
        work(number)
        os._exit(0)
      except BaseException:
        traceback.print_exc()
        os._exit(1)
    pids.append(pid)
  return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def test_what_is_appended_is_read_as_it_was(tmp_path):
  path = tmp_path / 'runs.jsonl'
  assert read(path) == []
  about = {'commit': 'abc', 'device': 'cpu', 'versions': {'jax': '1'}, 'time': 'now'}
  given = [
    made(0, **about, seconds=0.0, size=dict.fromkeys(SIZES, 5)),
    made(1, curve={'eval/loss': [[1, 2.5]]}, revisions=('a', 'b')),
    dataclasses.replace(made(2), status='diverged', step=0, values={}),
    dataclasses.replace(made(3), values={'eval/loss': float('nan')}),
  ]
  for run in given:
    append(path, run)
  null = dataclasses.replace(given[3], values={'eval/loss': None})  # JSON has no NaN
  assert read(path) == [*given[:3], null]
  texts = path.read_text().splitlines()
  assert len(texts) == 4
  # What is not known is left out; a number of zero is known.
  known = {'fingerprint', 'config', 'status'}
  assert json.loads(texts[0]).keys() == known | {*about, 'values', 'seconds', 'size'}
  assert json.loads(texts[2]).keys() == known | {'step'}


def test_a_run_is_appended_once(path):
  before = path.read_bytes()
  append(path, made(1))
  # The same run, whatever else is said of it, and on whatever machine it was.
  config = made(1).config | {'train': made(1).config['train'] | {'tensorboard': True}}
  append(path, dataclasses.replace(made(1, seconds=9.0), config=config))
  assert path.read_bytes() == before
  append(path, made(1, revisions=('a',)))
  assert seeds(read(path)) == [0, 1, 2, 1]


def test_a_kill_at_any_byte_of_an_append_loses_only_that_run(path, capsys):
  whole = path.read_bytes()
  start = whole.rstrip(b'\n').rfind(b'\n') + 1
  assert len(whole) - start > 1000
  said = f'{path}: its last line was cut short and is dropped\n'
  for end in range(start, len(whole) - 1):
    path.write_bytes(whole[:end])
    assert seeds(read(path)) == [0, 1]
  path.write_bytes(whole[:-1])  # an editor has left out the last newline
  assert seeds(read(path)) == [0, 1, 2]
  append(path, made(2))
  assert path.read_bytes() == whole[:-1]
  append(path, made(3))
  assert path.read_bytes().startswith(whole) and seeds(read(path)) == [0, 1, 2, 3]
  assert capsys.readouterr().err == said  # once
  for end in (start, start + 1, start + 500, len(whole) - 2):
    path.write_bytes(whole[:end])
    append(path, made(2))
    assert path.read_bytes() == whole
  path.write_bytes(whole[:100])  # that of the first run
  assert read(path) == []
  append(path, made(0))
  assert path.read_bytes() == whole[: whole.find(b'\n') + 1]


def of_line(**fields) -> str:
  """The line of a run with other fields, or without those of None."""
  tree = json.loads(line_of(made(1))) | fields
  return json.dumps({name: x for name, x in tree.items() if x is not None})


def other_config(**fields) -> dict:
  return made(1).config | fields


IS_NONE = 'is no line of a run: '
UNKNOWN = (
  r"'colour' is unknown, maybe of a later version of this code: must be one of commit, "
  'config, curve, data, device, fingerprint, platform, revisions, seconds, size, status, '
  'step, time, values, versions$'
)


@pytest.mark.parametrize(
  ('line', 'words'),
  [
    ('<<<<<<< HEAD', f"{IS_NONE}not JSON at '<<<<<<< HEAD'$"),
    ('\0\0\0\0', rf"{IS_NONE}not JSON at '(\\x00){{4}}'$"),
    ('{"status": ', f'{IS_NONE}it breaks off$'),
    (of_line()[:-300], IS_NONE),
    (of_line()[300:], IS_NONE),
    ('null', f'{IS_NONE}null, where there must be an object of JSON$'),
    ('[1]', rf'{IS_NONE}\[1\], where there must be an object of JSON$'),
    ('{"fingerprint": "a"}', f'{IS_NONE}has no config, status$'),
    (of_line(revisions=5), 'revisions=5: must be a list of texts$'),
    (of_line(revisions=[5]), r'revisions=\[5\]: must be a list of texts$'),
    (of_line(config=7), '7: must be a stored config, a tree of sections'),
    (of_line(config={'version': 0}), 'model: missing from a stored config of version 0'),
    (
      of_line(config=other_config(version=VERSION + 1)),
      f'version={VERSION + 1}: this code reads stored configs of versions 0 to {VERSION}$',
    ),
    (of_line(config=other_config(colour=1)), 'colour=1: '),
    (of_line(colour=1), UNKNOWN),
    (of_line(values=[1.0]), r'values=\[1.0\]: must be name -> number$'),
    (of_line(values={'eval/loss': 'low'}), 'values={.*}: must be name -> number$'),
    (of_line(size={'parameters': 5}), 'size: has no buffer_bytes; must have buffer_b'),
    (of_line(curve={'train/loss': [1, 2]}), 'curve={.*: must be name -> '),
    (of_line(commit=7), 'commit=7: must be a text$'),
    (of_line(versions={'jax': 1}), 'versions={.*: must be package -> version$'),
    (of_line(status='paused'), "status='paused': must be 'finished' or 'diverged'$"),
    (of_line().replace('"seed": 1', '"seed": NaN'), ''),
    ('\udcff{}', f'{IS_NONE}not UTF-8 at byte 0$'),
  ],
)
def test_a_damaged_line_is_named_by_its_number(path, line, words):
  texts = path.read_bytes().splitlines(keepends=True)
  texts[1] = line.encode(errors='surrogateescape') + b'\n'
  path.write_bytes(b''.join(texts))
  where = re.escape(f'{path}:2: ')
  with pytest.raises(UserError, match=f'^{where}{words}'):
    read(path)
  with pytest.raises(UserError, match=f'^{where}{words}'):
    append(path, made(7))
  assert path.read_bytes() == b''.join(texts)


def test_blank_lines_are_none(path, capsys):
  whole = path.read_bytes()
  for content in (whole + b'\n', whole + b' ', b'\n' + whole.replace(b'\n', b'\n \r\n')):
    path.write_bytes(content)
    assert seeds(read(path)) == [0, 1, 2]
    append(path, made(3))
    assert seeds(read(path)) == [0, 1, 2, 3]
  assert capsys.readouterr().err == ''


def test_processes_that_append_at_once_lose_and_tear_nothing(tmp_path):
  path = tmp_path / 'results/runs.jsonl'

  def work(number):
    for seed in range(25):
      append(path, made(25 * number + seed))

  assert in_processes(4, work) == [0] * 4
  found = seeds(read(path))
  assert sorted(found) == list(range(100))
  # At once, and each its own in order.
  assert found != sorted(found, key=lambda seed: seed // 25)
  for number in range(4):
    own = [seed for seed in found if seed // 25 == number]
    assert own == sorted(own)


@pytest.mark.parametrize('what', [read, lambda path: append(path, made(3))])
def test_nobody_reads_or_adds_while_a_line_is_written(path, what, capsys):
  found, line = [], (line_of(made(9)) + '\n').encode()
  thread = threading.Thread(target=lambda: found.append(what(path)))
  with path.open('ab', buffering=0) as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    file.write(line[:50])
    thread.start()
    thread.join(0.1)
    assert thread.is_alive()
    file.write(line[50:])
  thread.join(10)
  assert capsys.readouterr().err == ''
  assert seeds(found[0] or read(path))[:4] == [0, 1, 2, 9]
  assert len(read(path)) == (4 if found[0] else 5)


def test_a_place_that_cannot_be_read_or_written_is_named(tmp_path):
  (tmp_path / 'folder/runs.jsonl').mkdir(parents=True)
  (tmp_path / 'file').touch()
  for path, words in (
    (tmp_path / 'folder/runs.jsonl', 'Is a directory'),
    (tmp_path / 'file/runs.jsonl', 'File exists|Not a directory'),
    (pathlib.Path('/sys/results/runs.jsonl'), 'Operation not permitted|Permission|Read-on'),
  ):
    with pytest.raises(UserError, match=f'^{path}: cannot be written: ({words})'):
      append(path, made(0))
  for name in ('folder', 'file'):
    path = tmp_path / name / 'runs.jsonl'
    with pytest.raises(UserError, match=f'^{path}: cannot be read: (Is|Not) a directory'):
      read(path)


def test_a_full_disk_loses_only_the_run_that_did_not_fit(path, capsys):
  whole = path.read_bytes()
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  try:
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 100, hard))
    with pytest.raises(UserError, match=f'^{path}: cannot be written: File too large'):
      append(path, made(3))
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
  assert len(path.read_bytes()) == len(whole) + 100
  assert seeds(read(path)) == [0, 1, 2] and 'cut short' in capsys.readouterr().err
  append(path, made(3))
  assert seeds(read(path)) == [0, 1, 2, 3]
