"""Finds text files and reads their documents one at a time, good and bad."""

import dataclasses
import glob
import gzip
import json
import os
import pathlib
import zlib
from collections.abc import Iterator

from elas_jax.errors import UserError

PLAIN = ('.txt', '.md', '.py')
JSON_LINES = (
  '.jsonl',
  '.jsonl.gz',
  '.jsonl.zst',
  '.json.gz',  # as the published C4 shards are named
  '.json.zst',
)
ACCEPTED = ' '.join(PLAIN + JSON_LINES)
CHUNK_BYTES = 1 << 17  # of a file, read at a time
ZSTD_CHUNK_BYTES = 1 << 13  # a corrupt chunk loses what was unpacked from it before
MAX_DOCUMENT_BYTES = 1 << 30  # the format of the documents ends at 2 GiB


@dataclasses.dataclass(frozen=True)
class Document:
  """One record: its text, or why it has none.

  Attributes:
    key: 'file' or 'file:line', relative to the folder that was given.
    text: the document; None for a bad record.
    error: why there is no text; '' for a good record.
  """

  key: str
  text: str | None
  error: str = ''


def list_files(field: str, pattern: str) -> list[tuple[str, pathlib.Path]]:
  """(name relative to the corpus, path) of the text files, sorted by name.

  Args:
    field: the config field that gave `pattern`, for messages.
    pattern: a folder (searched recursively, without hidden files), a file or a glob.

  Raises:
    UserError: nothing is there, or nothing of an accepted kind.
  """
  expanded = os.path.expanduser(pattern)
  if os.path.isdir(expanded):
    base, found = expanded, _walk(field, expanded)
  elif os.path.lexists(expanded):
    base, found = os.path.dirname(expanded), [expanded]
  else:
    matches = sorted(glob.glob(expanded, recursive=True)) if pattern else []
    if not matches:
      raise UserError(
        f'{field}={pattern!r} does not exist; give a folder, a file or a glob of '
        f'{ACCEPTED} files'
      )
    base = _fixed_part(expanded)
    found = []
    for match in matches:
      found += _walk(field, match) if os.path.isdir(match) else [match]
  # A recursive glob may name a folder and the files in it.
  files = sorted({path for path in found if path.endswith(PLAIN + JSON_LINES)})
  if not files:
    raise UserError(
      f'{field}={pattern!r} holds no text files; accepted are {ACCEPTED} files'
    )
  named = [
    (pathlib.Path(os.path.relpath(path, base or '.')).as_posix(), pathlib.Path(path))
    for path in files
  ]
  return sorted(named)


def stat_files(files: list[tuple[str, pathlib.Path]]) -> list[tuple[str, int, int]]:
  """(name, bytes, time of change in ns) of each file, -1 where it is unreadable."""
  described = []
  for name, path in files:
    try:
      stat = path.stat()
      described.append((name, stat.st_size, stat.st_mtime_ns))
    except OSError:
      described.append((name, -1, -1))
  return described


def read_documents(name: str, path: pathlib.Path) -> Iterator[Document]:
  """Yields the documents of one file, bad records among them; never raises for them.

  A file that breaks off (a truncated archive, say) gives its good lines and then one
  bad record.
  """
  if path.exists() and not path.is_file():  # a pipe would be waited for
    yield Document(name, None, 'not a regular file')
  elif path.name.endswith(JSON_LINES):
    yield from _read_json_lines(name, path)
  else:
    yield _read_plain(name, path)


def _walk(field: str, folder: str) -> list[str]:
  """Every file below `folder`, through links too, but not hidden ones."""

  def refuse(error: OSError):
    raise UserError(
      f'{field}: folder {error.filename} cannot be listed ({error.strerror}); make '
      'it readable or give another folder'
    ) from error

  found = []
  seen = set()  # links may form a loop
  for root, subfolders, names in os.walk(folder, onerror=refuse, followlinks=True):
    if (real := os.path.realpath(root)) in seen:
      subfolders.clear()
      continue
    seen.add(real)
    subfolders[:] = sorted(name for name in subfolders if not name.startswith('.'))
    found += [os.path.join(root, name) for name in names if not name.startswith('.')]
  return found


def _fixed_part(pattern: str) -> str:
  """The folder that a glob starts from: its part before the first wildcard."""
  parts = pathlib.Path(pattern).parts
  first = next(i for i, part in enumerate(parts) if glob.has_magic(part))
  return os.path.join(*parts[:first]) if first else ''


def _read_plain(name: str, path: pathlib.Path) -> Document:
  try:
    if (size := path.stat().st_size) > MAX_DOCUMENT_BYTES:
      return Document(name, None, f'{size} bytes; cut documents above 1 GiB')
    return Document(name, path.read_bytes().decode('utf-8-sig'))
  except OSError as error:
    return Document(name, None, error.strerror or str(error))
  except UnicodeDecodeError as error:
    return Document(name, None, f'not UTF-8 at byte {error.start}')


def _read_json_lines(name: str, path: pathlib.Path) -> Iterator[Document]:
  number = 0
  try:
    for number, line in enumerate(_lines(path), start=1):
      if line.strip():
        yield _parse_line(f'{name}:{number}', line)
  # zstandard has its own exception; its module is not loaded for other files.
  except (OSError, EOFError, zlib.error, _BrokenArchive) as error:
    reason = getattr(error, 'strerror', None) or str(error)
    yield Document(f'{name}:{number + 1}', None, f'the file breaks off: {reason}')


def _parse_line(key: str, line: bytes) -> Document:
  try:
    record = json.loads(line.decode('utf-8-sig'))
  except UnicodeDecodeError as error:
    return Document(key, None, f'not UTF-8 at byte {error.start} of the line')
  except (ValueError, RecursionError) as error:
    return Document(key, None, f'not JSON: {error}')
  if not isinstance(record, dict) or 'text' not in record:
    return Document(key, None, "no field 'text'")
  text = record['text']
  if not isinstance(text, str):
    return Document(key, None, f"field 'text' is no string but {type(text).__name__}")
  try:
    text.encode()
  except UnicodeEncodeError:
    return Document(key, None, "field 'text' holds half a surrogate pair")
  return Document(key, text)


def _lines(path: pathlib.Path) -> Iterator[bytes]:
  """The lines of a file without their newline; none for a line that breaks off."""
  started = []  # pieces of a line that does not end in its chunk
  for chunk in _chunks(path):
    first, *rest = chunk.split(b'\n')
    started.append(first)
    if rest:
      yield b''.join(started)
      yield from rest[:-1]
      started = [rest[-1]]
  if last := b''.join(started):
    yield last


def _chunks(path: pathlib.Path) -> Iterator[bytes]:
  """The decompressed bytes of a file, piece by piece."""
  with open(path, 'rb') as file:
    if path.name.endswith('.zst'):
      yield from _zstd_chunks(file)
    elif path.name.endswith('.gz'):
      with gzip.GzipFile(fileobj=file) as unpacked:
        # read1, because read would drop what it already has when the file breaks off.
        while chunk := unpacked.read1(CHUNK_BYTES):
          yield chunk
    else:
      while chunk := file.read(CHUNK_BYTES):
        yield chunk


class _BrokenArchive(Exception):
  """A Zstandard file that is corrupt or ends too early."""


def _zstd_chunks(file) -> Iterator[bytes]:
  # Frame by frame, because zstandard's stream reader takes a truncated frame for a
  # finished one.
  import zstandard

  frame = None
  try:
    while data := file.read(ZSTD_CHUNK_BYTES):
      while data:
        frame = frame or zstandard.ZstdDecompressor().decompressobj()
        if unpacked := frame.decompress(data):
          yield unpacked
        data = frame.unused_data
        if frame.eof:
          frame = None
        else:
          break
  except zstandard.ZstdError as error:
    raise _BrokenArchive(str(error)) from error
  if frame is not None:
    raise _BrokenArchive('it ends inside a compressed frame')
