"""Paths that fields and flags name: `~` is the home folder, and addresses are refused.

And files and folders that are written there: whole, or not at all.
"""

import contextlib
import os
import pathlib
import re
import tempfile
from collections.abc import Iterable, Iterator

from elas_jax.common.errors import UserError
from elas_jax.common.interruption import cleaned_up
from elas_jax.common.limits import cut

_ADDRESS = re.compile(r'[A-Za-z][A-Za-z0-9+.-]*://')


def check_place(field: str, text: str | os.PathLike) -> None:
  """Refuses what can be no path on this machine; looks at the text alone.

  Args:
    field: the config field or flag that gave `text`, for the message.
    text: a path, or a glob.

  Raises:
    UserError: it is an address such as gs://bucket/run, or holds a NUL.
  """
  text = os.fspath(text)
  if address := _ADDRESS.match(text):
    raise UserError(
      f'{field}={text!r}: {address[0]} addresses are not read or written here; give a '
      'path, for a bucket that of the folder where it is mounted'
    )
  if '\0' in text:
    raise UserError(f'{field}={text!r}: a path holds no NUL')


def place(field: str, text: str | os.PathLike) -> pathlib.Path:
  """The path that a field or a flag names, with `~` and `~user` expanded.

  Raises:
    UserError: as `check_place`, or no home folder is known.
  """
  check_place(field, text)
  try:
    return pathlib.Path(text).expanduser()
  except RuntimeError:  # neither HOME nor the list of users says
    raise UserError(
      f'{field}={os.fspath(text)!r}: there is no home folder to put for '
      f'{pathlib.Path(text).parts[0]}; set HOME or give a path without it'
    ) from None


def write_text(path: pathlib.Path, text: str) -> None:
  """Writes a whole file or, if killed, nothing."""
  temporary = path.with_name(path.name + '.tmp')
  with temporary.open('w') as file:
    file.write(text)
    file.flush()
    os.fsync(file.fileno())
  os.replace(temporary, path)


def check_new_folder(flag: str, folder: pathlib.Path) -> None:
  """Refuses a place where no new folder can be written; `flag` gave it.

  Raises:
    UserError: something is there, or what it would lie in cannot be written.
  """
  with _written(flag, folder):
    real = _real(folder)
    # What is made beside an empty folder replaces it at the end: it cannot do so here.
    if folder.is_symlink() or os.path.ismount(real) or real == _real(pathlib.Path()):
      raise UserError(
        f'{flag}={folder}: a link, a mount point or the current folder, which cannot be '
        'replaced; must be a new folder, such as one in it'
      )
    if real.exists() and not (real.is_dir() and not any(real.iterdir())):
      raise UserError(f'{flag}={folder}: exists; must be a new or an empty folder')
    _check_first(flag, folder, real.parents)


def check_writable(flag: str, folder: pathlib.Path) -> None:
  """Refuses a folder, there or to be made, in which nothing can be written.

  Raises:
    UserError: it is none, or what it would lie in is none, or that cannot be written.
  """
  with _written(flag, folder):
    _check_first(flag, folder, (folder.absolute(), *folder.absolute().parents))


def _check_first(flag: str, folder: pathlib.Path, places: Iterable[pathlib.Path]) -> None:
  """Refuses `folder` if the first of the places that is there is none to write in."""
  first = next(filter(_is_there, places))
  if not (first.is_dir() and os.access(first, os.W_OK)):
    raise UserError(
      f'{flag}={folder}: cannot be written: {first} is no folder, or not writable'
    )


def _is_there(path: pathlib.Path) -> bool:
  """Also a link to nothing; raises OSError for what can never be."""
  try:
    path.lstat()
  except (FileNotFoundError, NotADirectoryError):
    return False
  return True


def _real(folder: pathlib.Path) -> pathlib.Path:
  return pathlib.Path(os.path.realpath(folder))


@contextlib.contextmanager
def _written(flag: str, folder: pathlib.Path) -> Iterator[None]:
  """Turns the errors of the system into those of the folder that `flag` gave."""
  try:
    yield
  except OSError as error:
    raise UserError(f'{flag}={folder}: cannot be written: {cut(str(error))}') from error


@contextlib.contextmanager
def new_folder(flag: str, folder: pathlib.Path) -> Iterator[pathlib.Path]:
  """A path for the block to make a folder at, which then becomes `folder`: or nothing does.

  What the block has written itself is flushed to the disk by whoever wrote it. A place
  where that must fail is refused by `check_new_folder` before.

  Raises:
    UserError: it cannot be written, or the disk is full.
  """
  with _written(flag, folder):
    real = _real(folder)
    real.parent.mkdir(parents=True, exist_ok=True)
    temporary = tempfile.TemporaryDirectory(prefix=f'{real.name}.tmp-', dir=real.parent)
    with cleaned_up(), temporary as at:
      made = pathlib.Path(at, 'made')
      yield made
      made.rename(real)
