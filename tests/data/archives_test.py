"""Lines of compressed files: whole, broken, and far larger than they look."""

import gzip
import tracemalloc

import pytest
import zstandard

from elas_jax.data import archives
from elas_jax.data.archives import BrokenFileError, read_lines

ZSTD_MAGIC = b'\x28\xb5\x2f\xfd'
BLOCK = 1 << 17  # bytes that a block of a Zstandard frame holds at most


def zstd_frame(window_log: int, blocks: list[tuple[int, bytes]]) -> bytes:
  """A frame by RFC 8878, without checksum and size, of (type 0 raw or 1 RLE, content).

  Of an RLE block the content is one byte, which stands for BLOCK of them.
  """
  frame = ZSTD_MAGIC + b'\x00' + bytes([window_log - 10 << 3])
  for i, (kind, content) in enumerate(blocks):
    size = BLOCK if kind == 1 else len(content)
    is_last = i == len(blocks) - 1
    frame += (size << 3 | kind << 1 | is_last).to_bytes(3, 'little') + content
  return frame


def lines_of(path, longest=1 << 20):
  return [line for line, _, _ in read_lines(path, longest)]


@pytest.mark.parametrize('suffix', ['jsonl', 'jsonl.gz', 'jsonl.zst', 'jsonl.ZST'])
def test_lines_that_cross_chunks(tmp_path, monkeypatch, suffix):
  expected = [b'a' * 50, b'', b'b', b'\r', b'c' * 99]
  content = b'\n'.join(expected)
  if suffix.endswith('gz'):
    content = gzip.compress(content)
  elif suffix.lower().endswith('zst'):
    content = zstandard.ZstdCompressor().compress(content)
  path = tmp_path / f'x.{suffix}'
  path.write_bytes(content)
  for chunk_bytes in (1, 7, 64, 1000):
    monkeypatch.setattr(archives, 'CHUNK_BYTES', chunk_bytes)
    monkeypatch.setattr(archives, 'ZSTD_CHUNK_BYTES', chunk_bytes)
    found = list(read_lines(path, 1000))
    assert found == [(line, len(line), i < 4) for i, line in enumerate(expected)]


def test_long_lines_are_measured_but_not_held(tmp_path, monkeypatch):
  path = tmp_path / 'x.jsonl'
  path.write_bytes(b'a' * 10 + b'\n' + b'b' * 11 + b'\nc\n' + b'd' * 30)
  for chunk_bytes in (1, 4, 1000):
    monkeypatch.setattr(archives, 'CHUNK_BYTES', chunk_bytes)
    assert list(read_lines(path, 10)) == [
      (b'a' * 10, 10, True),
      (None, 11, True),
      (b'c', 1, True),
      (None, 30, False),
    ]


@pytest.mark.parametrize('window_log', [27, 28, 31])
def test_windows_of_long_zstandard_files(tmp_path, window_log):
  path = tmp_path / 'x.zst'
  path.write_bytes(zstd_frame(window_log, [(0, b'one\ntw'), (0, b'o\n')]))
  assert lines_of(path) == [b'one', b'two']


def test_larger_windows_are_refused(tmp_path):
  path = tmp_path / 'x.zst'
  path.write_bytes(zstd_frame(32, [(0, b'one\n')]))
  with pytest.raises(BrokenFileError, match='memory'):
    lines_of(path)


@pytest.mark.parametrize('suffix', ['gz', 'zst'])
def test_an_empty_file_is_no_archive(tmp_path, suffix):
  path = tmp_path / f'x.jsonl.{suffix}'
  path.write_bytes(b'')
  with pytest.raises(BrokenFileError, match='empty'):
    lines_of(path)
  # An archive of nothing is one, and so is a plain file without lines.
  whole = gzip.compress(b'') if suffix == 'gz' else zstandard.compress(b'')
  path.write_bytes(whole)
  assert lines_of(path) == []
  (tmp_path / 'x.jsonl').write_bytes(b'')
  assert lines_of(tmp_path / 'x.jsonl') == []


@pytest.mark.parametrize('suffix', ['gz', 'zst'])
def test_a_bomb_is_read_in_little_memory(tmp_path, suffix):
  unpacked = 256 << 20
  if suffix == 'gz':  # a file of many members is one
    bomb = gzip.compress(b'x' * (16 << 20), compresslevel=1) * 16
  else:
    bomb = zstd_frame(20, [(1, b'x')] * (unpacked // BLOCK))
  path = tmp_path / f'bomb.jsonl.{suffix}'
  path.write_bytes(bomb)
  assert len(bomb) < unpacked / 100
  tracemalloc.start()
  try:
    assert list(read_lines(path, 1 << 20)) == [(None, unpacked, False)]
    peak = tracemalloc.get_traced_memory()[1]
  finally:
    tracemalloc.stop()
  assert peak < 100 << 20
