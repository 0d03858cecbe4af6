"""Finds text files and reads their documents one at a time, good and bad."""

import collections
import dataclasses
import functools
import glob
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence

from elas_jax.common.errors import UserError
from elas_jax.common.places import check_place
from elas_jax.data import cache
from elas_jax.data.archives import BrokenFileError, read_lines

PLAIN = ('.txt', '.md', '.py')
JSON_LINES = (
  '.jsonl',
  '.jsonl.gz',
  '.jsonl.zst',
  '.ndjson',
  '.ndjson.gz',
  '.ndjson.zst',
  '.json.gz',  # as the published C4 shards are named
  '.json.zst',
)
KINDS = PLAIN + JSON_LINES
ACCEPTED = ' '.join(KINDS)
COMPRESSIONS = ('.gz', '.zst', '.bz2', '.xz', '.zip')
MAX_DOCUMENT_BYTES = 1 << 30  # the format of the documents ends at 2 GiB
# What JSON becomes in memory may be 25 times its size, so that a line has a lower limit.
MAX_LINE_BYTES = 1 << 26
TextOf = Callable[[object], tuple[str | None, str]]  # see `text_of`


@dataclasses.dataclass(frozen=True)
class Document:
  """One record: its text, or why it has none.

  Attributes:
    key: 'file' or 'file:line', relative to the folder that was given.
    text: the document; None for a bad record.
    size: bytes of the record as it was read; 0 if unknown.
    error: why there is no text; '' for a good record.
    breaks_off: the file ends here, and how many records follow is unknown.
  """

  key: str
  text: str | None
  size: int
  error: str = ''
  breaks_off: bool = False


def list_files(
  field: str, pattern: str, kinds: tuple[str, ...] = KINDS
) -> list[tuple[str, pathlib.Path]]:
  """(name relative to the corpus, path) of the text files, sorted by name.

  Args:
    field: the config field that gave `pattern`, for messages.
    pattern: a folder (searched recursively, without hidden files), a file or a glob.
    kinds: how the names of files end that are read.

  Raises:
    UserError: no path, nothing is there, or nothing of an accepted kind.
  """
  check_place(field, pattern)
  base, found = _find(field, pattern)
  files = [path for path in found if _has_kind(path, kinds)]
  if not files:
    raise UserError(
      f'{field}={pattern!r} holds no text files; accepted are {" ".join(kinds)} files'
    )
  named = [
    (pathlib.Path(os.path.relpath(path, base or '.')).as_posix(), pathlib.Path(path))
    for path in files
  ]
  return sorted(named)


def count_other_files(
  field: str,
  pattern: str,
  is_left_out: Callable[[pathlib.Path], bool] = lambda path: False,
  kinds: tuple[str, ...] = KINDS,
) -> dict[str, int]:
  """How many files `pattern` finds that list_files leaves out, by kind, most first.

  Those that `is_left_out` says yes to are not counted.
  """
  _, found = _find(field, pattern)
  others = [x for x in found if not _has_kind(x, kinds)]
  kept = [x for x in others if not is_left_out(pathlib.Path(x))]
  return dict(collections.Counter(map(_kind, kept)).most_common())


def size_of(path: pathlib.Path) -> int:
  """Bytes of a file, 0 where it is unreadable."""
  try:
    return path.stat().st_size
  except OSError:
    return 0


def text_of(record: object) -> tuple[str | None, str]:
  """(the text of a line of JSON, ''), or (None, why it has none)."""
  if not isinstance(record, dict) or 'text' not in record:
    return None, "no field 'text'"
  text = record['text']
  if not isinstance(text, str):
    return None, f"field 'text' is no string but {type(text).__name__}"
  try:
    text.encode()
  except UnicodeEncodeError:
    return None, "field 'text' holds half a surrogate pair"
  return text, ''


def read_documents(
  name: str, path: pathlib.Path, of_line: TextOf = text_of
) -> Iterator[Document]:
  """Yields the documents of one file, bad records among them; never raises for them.

  A file that breaks off (a truncated archive, say) gives its good lines and then one
  bad record that says so. `of_line` reads the lines of JSON.
  """
  is_lines = _has_kind(path.name, JSON_LINES)
  if path.exists() and not path.is_file():  # a pipe would be waited for
    yield Document(name, None, 0, 'not a regular file', breaks_off=is_lines)
  elif is_lines:
    yield from _read_json_lines(name, path, of_line)
  else:
    yield _read_plain(name, path)


def read_prepared(
  documents: Sequence[dict], numbers: Sequence[int], folder: pathlib.Path, split: str
) -> tuple[list[str], list[int]]:
  """(texts, bytes of each document that is left out since it is not UTF-8).

  Args:
    documents: random access to a split of a prepared TFDS set, which holds bytes.
    numbers: which of them.
    folder, split: where they are, for messages.

  Raises:
    UserError: a file of the set is missing or damaged.
  """
  try:
    found = documents.__getitems__(list(numbers))
  except RuntimeError as error:  # of ArrayRecord, whatever it is
    raise _damaged(folder, split, str(error).splitlines()[0]) from error
  texts, unreadable = [], []
  for number, document in zip(numbers, found):
    if document['text'] is None:  # what TFDS makes of a record in a truncated file
      raise _damaged(folder, split, f'document {number} has no text')
    try:
      texts.append(document['text'].decode())
    except UnicodeDecodeError:
      unreadable.append(len(document['text']))
  return texts, unreadable


def _damaged(folder: pathlib.Path, split: str, why: str) -> UserError:
  root = folder.parents[1]
  if (root / cache.META).is_file():  # of an own source, in the cache
    return cache.damaged(root, folder, why)
  return UserError(f'{folder} ({split}) is damaged ({why}); prepare it again')


def _has_kind(path: str, kinds: tuple[str, ...]) -> bool:
  return path.lower().endswith(kinds)


def _kind(path: str) -> str:
  """'.parquet' or '.txt.gz', '' without a suffix."""
  *_, before, last = ('', '', *pathlib.Path(path.lower()).suffixes)
  return before + last if last in COMPRESSIONS else last


def _find(field: str, pattern: str) -> tuple[str, list[str]]:
  """(folder that names are relative to, every file of any kind), sorted."""
  expanded = os.path.expanduser(pattern)
  if os.path.isdir(expanded):
    base, found = expanded, _walk(field, expanded)
  elif os.path.lexists(expanded):
    base, found = os.path.dirname(expanded), [expanded]
  else:
    matches = _expand(field, expanded) if pattern else []
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
  return base, sorted(set(found))


def _expand(field: str, pattern: str) -> list[str]:
  """The matches of a glob; refuses folders on its way that glob would pass over."""
  for parent in pathlib.Path(pattern).parents:
    if glob.has_magic(str(parent)):
      for folder in glob.iglob(f'{parent}/', recursive=True):
        if not os.access(folder, os.R_OK | os.X_OK):
          _refuse_folder(field, folder, 'Permission denied')
  return sorted(glob.glob(pattern, recursive=True))


def _refuse_folder(field: str, folder: str, reason: str) -> None:
  raise UserError(
    f'{field}: folder {folder} cannot be listed ({reason}); make it readable or give '
    'another folder'
  )


def _walk(field: str, folder: str) -> list[str]:
  """Every file below `folder`, through links too, but not hidden ones."""

  def refuse(error: OSError):
    _refuse_folder(field, error.filename, error.strerror)

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
  size = 0
  try:
    if (size := path.stat().st_size) > MAX_DOCUMENT_BYTES:
      return Document(
        name, None, size, f'{size} bytes; cut documents above {MAX_DOCUMENT_BYTES}'
      )
    return Document(name, path.read_bytes().decode('utf-8-sig'), size)
  except OSError as error:
    return Document(name, None, size, error.strerror or str(error))
  except UnicodeDecodeError as error:
    return Document(name, None, size, f'not UTF-8 at byte {error.start}')


def _read_json_lines(name: str, path: pathlib.Path, of_line: TextOf) -> Iterator[Document]:
  number = 0
  try:
    for number, (line, size, is_ended) in enumerate(
      read_lines(path, MAX_LINE_BYTES), start=1
    ):
      key = f'{name}:{number}'
      if line is None:
        reason = f'{size} bytes; cut lines above {MAX_LINE_BYTES}'
        yield Document(key, None, size, reason)
      elif line.strip():
        yield _parse_line(key, line, is_ended, of_line)
  except BrokenFileError as error:
    reason = f'the file breaks off: {error}'
    yield Document(f'{name}:{number + 1}', None, 0, reason, breaks_off=True)


def _parse_line(key: str, line: bytes, is_ended: bool, of_line: TextOf) -> Document:
  """The document of a line; half a line at the end is where the file breaks off."""
  bad = functools.partial(Document, key, None, len(line))
  try:
    record = json.loads(line.decode('utf-8-sig'))
  except (ValueError, RecursionError) as error:
    reason = f'not JSON: {error}'
    if isinstance(error, UnicodeDecodeError):
      reason = f'not UTF-8 at byte {error.start} of the line'
    if is_ended:
      return bad(reason)
    return bad(f'the file breaks off: no newline, and {reason}', breaks_off=True)
  text, why = of_line(record)
  return bad(why) if text is None else Document(key, text, len(line))
