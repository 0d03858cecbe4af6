"""Finds a prepared set of the TFDS catalogue on the disk, without the catalogue."""

import contextlib
import json
import os
import pathlib
import re
from collections.abc import Iterable, Iterator
from typing import Any

from elas_jax.common.errors import UserError
from elas_jax.common.limits import quoted, shown
from elas_jax.common.places import place
from elas_jax.data.corpus import OWN_SOURCES

SETS = ('c4/en', 'lm1b', 'mnist')  # for messages
_VERSION = re.compile(r'(\d+)\.(\d+)\.(\d+)')
_NAME = re.compile(r'\w+(/[\w.+-]+)?')


def find_folder(
  name: str, data_dir: str, others: Iterable[str] = OWN_SOURCES
) -> pathlib.Path:
  """The folder of the newest prepared version of `name`, say 'c4/en' or 'lm1b'.

  Args:
    name: 'set' or 'set/config'.
    data_dir: where TFDS keeps its sets; '' is TFDS's own default.
    others: further kinds of data.source, for the messages.

  Raises:
    UserError: no such set, not prepared, or prepared in a format without random
      access. The message says which command prepares it.
  """
  check_name('data.source.name', name)
  root = place('data.source.data_dir', data_dir or _default_data_dir())
  versions = sorted(_versions(root / name))
  if not versions:
    raise UserError(_not_prepared(name, root, others))
  folder = root / name / '.'.join(map(str, versions[-1]))
  if (found := _read_info(folder).get('fileFormat')) != 'array_record':
    raise UserError(
      f'data.source.name={name!r}: {folder} is prepared as {found or "tfrecord"}, which '
      f'has no random access; accepted is array_record: {_command(name, root)}'
    )
  return folder


def check_name(field: str, name: str) -> None:
  """Refuses what can be no name of a set."""
  if not _NAME.fullmatch(name):
    raise UserError(
      f'{field}={shown(name)}: accepted are names of prepared TFDS sets, such as '
      f'{quoted(SETS)}'
    )


def open_builder(folder: pathlib.Path) -> Any:
  """The TFDS builder of a prepared folder, which reads it without running its code.

  `features.json` names the classes that decode the examples, and TFDS imports the module
  of any class that it does not know: a set from elsewhere could run what lies in the
  current folder. So only TFDS's own classes are accepted.

  Raises:
    UserError: the metadata cannot be read, or name another class.
  """
  import tensorflow_datasets as tfds  # 0.4 s, so only where documents are read
  from google.protobuf import json_format

  path = folder / 'features.json'
  try:
    named = set(_class_names(json.loads(path.read_text())))
  except (OSError, ValueError, RecursionError) as error:
    raise UserError(_unreadable(path, error)) from error
  if foreign := sorted(named - feature_classes()):
    raise UserError(
      f'data.source.data_dir: {path} names the class {foreign[0]!r}, which is none of TFDS '
      'and is not imported; accepted are sets of the feature classes in tfds.features'
    )
  try:
    return tfds.builder_from_directory(folder)
  except (ValueError, json_format.ParseError) as error:
    raise UserError(_unreadable(folder, error)) from error


def held_out_split(info: Any, where: str) -> str:
  """What a set with a split 'train' calls the one to validate on.

  Raises:
    UserError: it lacks one of the two; `where` names the set.
  """
  present = [name for name, split in info.splits.items() if split.num_examples]
  held_out = next((name for name in ('validation', 'test') if name in present), None)
  if 'train' not in present or held_out is None:
    raise UserError(
      f"{where} has the splits {present}; needed are 'train' and one of 'validation' "
      "and 'test'"
    )
  return held_out


def feature_classes() -> set[str]:
  """The names of TFDS's feature classes, old ones among them, as features.json has them."""
  import tensorflow_datasets as tfds

  found = [x for x in vars(tfds.features).values() if isinstance(x, type)]
  found = [x for x in found if issubclass(x, tfds.features.FeatureConnector)]
  found.remove(tfds.features.FeatureConnector)
  names = {f'{x.__module__}.{x.__name__}' for x in found}
  return names | {alias for x in found for alias in x.ALIASES}


def _class_names(value: Any) -> Iterator[str]:
  """Every class that a part of features.json names, in any of the ways that TFDS reads.

  TFDS writes 'pythonClassName'; it also reads the other spelling of that field, pairs of
  'type' and 'content' of its older versions, and JSON inside of strings.
  """
  if isinstance(value, dict):
    names = [value.get(x) for x in ('pythonClassName', 'python_class_name')]
    if 'content' in value:
      names.append(value.get('type'))
    yield from (name for name in names if isinstance(name, str))
    value = list(value.values())
  if isinstance(value, list):
    for part in value:
      yield from _class_names(part)
  elif isinstance(value, str):
    with contextlib.suppress(ValueError):  # an ordinary string
      inner = json.loads(value)
      if isinstance(inner, (dict, list)):
        yield from _class_names(inner)


def list_files(folder: pathlib.Path) -> list[tuple[str, pathlib.Path]]:
  """(name, path) of the set's files, its metadata among them, sorted by name."""
  return sorted((path.name, path) for path in folder.iterdir() if path.is_file())


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
    info = json.loads((folder / 'dataset_info.json').read_text())
    if not isinstance(info, dict):
      raise ValueError('it is no JSON object')
    return info
  except (OSError, ValueError, RecursionError) as error:
    raise UserError(_unreadable(folder / 'dataset_info.json', error)) from error


def _unreadable(path: pathlib.Path, error: Exception) -> str:
  return f'data.source.data_dir: {path} cannot be read ({error}); prepare the set again'


def _not_prepared(name: str, root: pathlib.Path, others: Iterable[str]) -> str:
  folder = root / name
  configs = []
  if folder.is_dir():
    configs = sorted(path.name for path in folder.iterdir() if _versions(path))
  if configs:
    accepted = ', '.join(repr(f'{name}/{config}') for config in configs)
    return f'data.source.name={name!r} needs a config; prepared are {accepted}'
  return (
    f'data.source.name={name!r}: no TFDS set of that name is prepared in '
    f'data.source.data_dir={str(root)!r}; prepare it with: {_command(name, root)}. Other '
    f'kinds of data.source are {", ".join(others)}'
  )


def _command(name: str, root: pathlib.Path) -> str:
  return (
    f'tfds build {name} --data_dir={root} --file_format=array_record (needs: pip '
    'install tensorflow apache-beam)'
  )
