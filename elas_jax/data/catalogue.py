"""Finds a prepared set of the TFDS catalogue on the disk, without the catalogue."""

import json
import os
import pathlib
import re
from collections.abc import Sequence

from elas_jax.data.hashing import fingerprint
from elas_jax.errors import UserError

OWN_SOURCES = ('python_source', 'text_files')
_VERSION = re.compile(r'(\d+)\.(\d+)\.(\d+)')
_NAME = re.compile(r'\w+(/[\w.+-]+)?')


def find_folder(name: str, data_dir: str, own: Sequence[str] = OWN_SOURCES) -> pathlib.Path:
  """The folder of the newest prepared version of `name`, say 'c4/en' or 'lm1b'.

  Args:
    name: 'set' or 'set/config'.
    data_dir: where TFDS keeps its sets; '' is TFDS's own default.
    own: what else would have been accepted, for the messages.

  Raises:
    UserError: no such set, not prepared, or prepared in a format without random
      access. The message says which command prepares it.
  """
  if not _NAME.fullmatch(name):
    raise UserError(
      f'data.source={name!r}: accepted are {", ".join(own)} and names of '
      "prepared TFDS sets such as 'c4/en'"
    )
  root = pathlib.Path(data_dir or _default_data_dir()).expanduser()
  versions = sorted(_versions(root / name))
  if not versions:
    raise UserError(_not_prepared(name, root, own))
  folder = root / name / '.'.join(map(str, versions[-1]))
  if (found := _read_info(folder).get('fileFormat')) != 'array_record':
    raise UserError(
      f'data.source={name!r}: {folder} is prepared as {found or "tfrecord"}, which '
      f'has no random access; accepted is array_record: {_command(name, root)}'
    )
  return folder


def folder_fingerprint(folder: pathlib.Path) -> str:
  """Fingerprint over the set's metadata and the sizes of its files."""
  sizes = sorted((path.name, path.stat().st_size) for path in folder.iterdir())
  features = (folder / 'features.json').read_text()
  return fingerprint(_read_info(folder), features, sizes)


def _default_data_dir() -> str:
  return os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets'


def _versions(folder: pathlib.Path) -> list[tuple[int, ...]]:
  if not folder.is_dir():
    return []
  return [
    tuple(map(int, match.groups()))
    for path in folder.iterdir()
    if (match := _VERSION.fullmatch(path.name))
    and (path / 'dataset_info.json').is_file()
    and (path / 'features.json').is_file()
  ]


def _read_info(folder: pathlib.Path) -> dict:
  try:
    return json.loads((folder / 'dataset_info.json').read_text())
  except (OSError, ValueError) as error:
    raise UserError(
      f'data.path: {folder / "dataset_info.json"} cannot be read ({error}); prepare '
      'the set again'
    ) from error


def _not_prepared(name: str, root: pathlib.Path, own: Sequence[str]) -> str:
  folder = root / name
  configs = []
  if folder.is_dir():
    configs = sorted(path.name for path in folder.iterdir() if _versions(path))
  if configs:
    accepted = ', '.join(repr(f'{name}/{config}') for config in configs)
    return f'data.source={name!r} needs a config; prepared are {accepted}'
  return (
    f'data.source={name!r} is neither {" nor ".join(own)} nor a TFDS set '
    f'prepared in data.path={str(root)!r}; prepare it with: {_command(name, root)}'
  )


def _command(name: str, root: pathlib.Path) -> str:
  return (
    f'tfds build {name} --data_dir={root} --file_format=array_record (needs: pip '
    'install tensorflow apache-beam)'
  )
