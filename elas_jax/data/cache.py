"""Folders of the cache: there, complete and as they were written, or not there."""

import contextlib
import errno
import fcntl
import json
import os
import pathlib
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import google_crc32c

from elas_jax.common.errors import UserError
from elas_jax.common.interruption import cleaned_up

# A folder of the cache is complete exactly if it holds this file.
META = 'meta.json'
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


def is_complete(folder: pathlib.Path) -> bool:
  """Whether `folder` was written to its end and is not damaged."""
  return _fault(folder) is None


def write_meta(folder: pathlib.Path, meta: dict[str, Any]) -> None:
  """Writes META: `meta`, and what the other files are, to know them again."""
  paths = [path for path in sorted(folder.rglob('*')) if path.is_file()]
  files = {str(path.relative_to(folder)): _content(path) for path in paths}
  meta = {**meta, 'files': files}
  text = json.dumps({**meta, 'crc32c': _checksum(meta)}, indent=2, allow_nan=False)
  (folder / META).write_text(text)


def damaged(folder: pathlib.Path, path: pathlib.Path, why: str) -> UserError:
  """The error for a file of `folder` whose damage shows only when it is read.

  The folder is complete no longer, so that the next start makes it again.
  """
  then = 'the same command makes it again'
  try:
    (folder / META).rename(folder / f'{META}.damaged')
  except FileNotFoundError:
    pass  # another thread was here
  except OSError as error:
    then = f'delete {folder}, which cannot be written here ({error.strerror})'
  return UserError(f'{path} is damaged ({why}); {then}')


def _fault(folder: pathlib.Path) -> str | None:
  """What is missing or not as it was written; None if nothing is."""
  try:
    meta = json.loads((folder / META).read_text())
  except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
    return f'{META} is missing'
  except ValueError as error:  # JSON or UTF-8
    return f'{META}: {error}'
  if not isinstance(meta, dict):
    return f'{META} holds no object'
  known = meta.pop('crc32c', None)
  if known is None and 'files' not in meta:
    return None  # written before there were checksums
  if known != _checksum(meta):
    return f'{META}: the checksum differs'
  for name, content in meta['files'].items():
    try:
      if _content(folder / name) != content:
        return f'{name} is not as it was written'
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
      return f'{name} is missing'
  return None


def _content(path: pathlib.Path) -> list[int | None]:
  """Size and checksum; not of ArrayRecord files, which are large and have their own."""
  if '.array_record' in path.name:
    return [path.stat().st_size, None]
  data = path.read_bytes()
  return [len(data), google_crc32c.value(data)]


def _checksum(meta: dict[str, Any]) -> int:
  return google_crc32c.value(json.dumps(meta, sort_keys=True).encode())


def make_folder(
  cache_dir: pathlib.Path, name: str, write: Callable[[pathlib.Path], None]
) -> pathlib.Path:
  """Returns `cache_dir/name`, calling `write(temporary folder)` if it is missing.

  What `write` leaves is flushed to the disk and renamed in one step, so an
  interrupted preparation leaves nothing that looks finished. A second process that
  asks for the same folder waits for the first and uses its result. `write` must
  end with `write_meta`. A damaged folder is made again, which is said.

  Raises:
    UserError: data.cache_dir cannot be written, or the disk is full.
  """
  folder = cache_dir / name
  try:
    if is_complete(folder):
      return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _lock(folder.with_name(f'{folder.name}.lock')) as is_locked:
      if is_complete(folder):
        return folder
      if is_locked:
        _remove_leftovers(folder)
      if folder.exists():
        print(f'{folder} is damaged ({_fault(folder)}): made again', file=sys.stderr)
        _remove(folder)
      with cleaned_up():
        _write_and_rename(folder, write)
  except OSError as error:
    if not _is_of(cache_dir, error):
      raise
    raise UserError(
      f'data.cache_dir={str(cache_dir)!r} cannot be written: {error}; give a folder '
      'with enough space that you may write to'
    ) from error
  return folder


def _is_of(cache_dir: pathlib.Path, error: OSError) -> bool:
  """Whether the cache caused the error: a full disk, or one of its own paths."""
  # NumPy says that the disk is full without a number.
  if error.errno in (None, *FULL):
    return True
  if not isinstance(error.filename, str):
    return False
  path = pathlib.Path(error.filename)
  return path.is_relative_to(cache_dir) or cache_dir.is_relative_to(path)


@contextlib.contextmanager
def _system_errors() -> Iterator[None]:
  """Turns the RuntimeError by which ArrayRecord reports a full disk into an OSError."""
  try:
    yield
  except RuntimeError as error:
    failed = re.match(r'\w+\(\) failed: ([^;]+); \w+ ([^;]+)', str(error))
    numbers = {os.strerror(number): number for number in errno.errorcode}
    if not failed or failed[1] not in numbers:
      raise
    raise OSError(numbers[failed[1]], failed[1], failed[2]) from error


@contextlib.contextmanager
def _lock(path: pathlib.Path) -> Iterator[bool]:
  """Holds an exclusive lock; yields False where the file system has no locks.

  The system drops the lock when its holder dies, also by SIGKILL. The file itself
  stays: removing it would let two processes lock two files of the same name.
  """
  with open(path, 'w') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      print(f'waiting for another process to prepare {path.stem}', file=sys.stderr)
      fcntl.flock(file, fcntl.LOCK_EX)
    except OSError:
      yield False  # two preparations may now run; the first to rename wins
      return
    yield True


def _remove(folder: pathlib.Path) -> None:
  if folder.is_dir():
    shutil.rmtree(folder)
  else:
    folder.unlink()


def _remove_leftovers(folder: pathlib.Path) -> None:
  """Removes temporary folders of dead preparations: only the lock's holder has one."""
  for leftover in folder.parent.glob(f'{folder.name}.tmp-*'):
    shutil.rmtree(leftover, ignore_errors=True)


def _write_and_rename(folder: pathlib.Path, write: Callable[[pathlib.Path], None]) -> None:
  temporary = pathlib.Path(
    tempfile.mkdtemp(prefix=f'{folder.name}.tmp-', dir=folder.parent)
  )
  try:
    with _system_errors():
      write(temporary)
    _flush(temporary)
    temporary.chmod(0o755)  # mkdtemp's 0o700 would hide a shared cache
    try:
      temporary.rename(folder)
    except OSError:
      if not is_complete(folder):  # else another process was first: use its folder
        raise
    _flush_one(folder.parent)
  finally:
    shutil.rmtree(temporary, ignore_errors=True)


def _flush(folder: pathlib.Path) -> None:
  """Forces every file and folder below `folder` to the disk."""
  for root, _, names in os.walk(folder):
    for name in names:
      _flush_one(os.path.join(root, name))
    _flush_one(root)


def _flush_one(path: str | pathlib.Path) -> None:
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)
