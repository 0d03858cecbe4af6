"""Hashes of files, read again only where that is needed."""

import hashlib
import json
import os
import time

import pytest

from elas_jax.data import file_hashes
from elas_jax.data.file_hashes import hash_files


@pytest.fixture
def files(tmp_path):
  """Three files that nobody has touched for an hour, so that their hashes are kept."""
  (tmp_path / 'corpus').mkdir()
  for name, text in (('a', 'one'), ('b', 'two'), ('c', 'three')):
    (tmp_path / 'corpus' / name).write_text(text)
  return [(name, tmp_path / 'corpus' / name) for name in 'abc']


@pytest.fixture
def read(monkeypatch):
  """The names of the files that are read, in order."""
  found, real = [], file_hashes._hash

  def spy(path):
    found.append(path.name)
    return real(path)

  monkeypatch.setattr(file_hashes, '_hash', spy)
  return found


@pytest.fixture
def later(monkeypatch):
  """The clock, an hour ahead: what was written just now is old."""
  now = time.time
  monkeypatch.setattr(file_hashes.time, 'time', lambda: now() + 3600)


def test_hashes_are_those_of_the_contents(files, tmp_path):
  found = hash_files(files, str(tmp_path / 'cache'), 'here')
  assert found == {
    name: hashlib.sha256(text).hexdigest()[:20]
    for name, text in (('a', b'one'), ('b', b'two'), ('c', b'three'))
  }
  assert list(found) == ['a', 'b', 'c']


@pytest.mark.usefixtures('later')
def test_what_did_not_change_is_not_read_again(files, tmp_path, read):
  call = lambda place='here': hash_files(files, str(tmp_path / 'cache'), place)
  first = call()
  assert sorted(read) == ['a', 'b', 'c']
  assert call() == first
  assert len(read) == 3
  # Size and time of modification as before; the time of change is another one.
  path = tmp_path / 'corpus' / 'b'
  stat = path.stat()
  time.sleep(0.02)
  path.write_text('owt')
  os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
  second = call()
  assert read[3:] == ['b']
  assert second == first | {'b': hashlib.sha256(b'owt').hexdigest()[:20]}
  call('another place')
  assert len(read) == 7


def test_a_file_that_changed_just_now_is_read_again(files, tmp_path, read):
  for _ in range(2):
    hash_files(files, str(tmp_path / 'cache'), 'here')
  assert len(read) == 6


@pytest.mark.usefixtures('later')
@pytest.mark.parametrize('damage', ['', '{', '[]', '{"a": 3}', '{"a": []}'])
def test_a_damaged_memo_is_made_anew(files, tmp_path, damage):
  call = lambda: hash_files(files, str(tmp_path / 'cache'), 'here')
  expected = call()
  (memo,) = (tmp_path / 'cache' / 'hashes').iterdir()
  whole = memo.read_text()
  memo.write_text(damage)
  assert call() == expected
  assert json.loads(memo.read_text()) == json.loads(whole)


@pytest.mark.usefixtures('later')
def test_a_cache_that_cannot_be_written(files, tmp_path):
  (tmp_path / 'file').write_text('')
  expected = hash_files(files, str(tmp_path / 'cache'), 'here')
  assert hash_files(files, str(tmp_path / 'file'), 'here') == expected


def test_unreadable_files_have_no_hash(files, tmp_path):
  os.mkfifo(tmp_path / 'corpus' / 'pipe')
  (tmp_path / 'corpus' / 'dangling').symlink_to('nowhere')
  names = ('pipe', 'dangling')
  files += [(name, tmp_path / 'corpus' / name) for name in names]
  found = hash_files(files, str(tmp_path / 'cache'), 'here')
  assert [found[name] for name in names] == ['unreadable'] * 2
