"""The configs of all recorded runs: configs.jsonl, beside the folders of the tables.

One line a run, only ever added to: `fingerprint`, the name that the run has in the tables'
JSON files, and `config`, its whole tree with the version that wrote it, less what depends
on the machine. By that tree a run is recognised, as today's code reads it, lifted and
filled, and not by a hash of long ago: a field that is younger than the run has its default,
a default that changed since has not. So the first default of a new field says what runs of
before it did; a later one needs their lines to have the field first.

What no line says is not recognised by its table: results of before there was this file can
only be found in the folder of their runs.
"""

import fcntl
import functools
import hashlib
import json
import os
import pathlib
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from elas_jax.common.errors import UserError
from elas_jax.config import schema
from elas_jax.config.config import Config, filled, to_tree
from elas_jax.config.migrate import lifted
from elas_jax.run.continuation import MACHINE_FIELDS

LEFT_OUT = (
  *MACHINE_FIELDS,
  'train.compilation_cache',
  'train.tensorboard',
  'eval.measures',
)


def portable(tree: dict[str, Any]) -> dict[str, Any]:
  """A config's tree without what no result depends on: places, processes, buffers."""
  tree = {k: dict(v) if isinstance(v, dict) else v for k, v in tree.items()}
  for field in LEFT_OUT:
    section, name = field.split('.')
    tree[section].pop(name, None)
  return tree


def stored(tree: dict[str, Any]) -> Config:
  """The config of a tree that some version has stored; not checked."""
  return filled(lifted(tree))


def canonical(config: Config) -> str:
  """The same text of all configs that say the same, however old what stored them is."""
  return _text(portable(schema.tree(config)))


def key(canonical_tree: str, revisions: Iterable[str]) -> str:
  """What two runs share if they are one: of `canonical`, and of their code's revisions."""
  names = json.dumps(list(revisions))
  return hashlib.sha256(f'{canonical_tree}{names}'.encode()).hexdigest()[:12]


def read(results: pathlib.Path) -> dict[str, str]:
  """Name -> canonical tree of every run of the tables in `results`; {} without a file.

  A last line that a kill cut short is dropped, and said.

  Raises:
    UserError: another line is damaged.
  """
  path = _path(results)
  try:
    with path.open('rb') as file:
      fcntl.flock(file, fcntl.LOCK_SH)
      return _names(path, file.read())
  except FileNotFoundError:
    return {}


def append(results: pathlib.Path, configs: Mapping[str, Config]) -> None:
  """Writes the lines of these runs, by name, where there are none yet."""
  if not configs or configs.keys() <= read(results).keys():
    return
  path = _path(results)
  path.parent.mkdir(parents=True, exist_ok=True)
  with path.open('ab+') as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    file.seek(0)
    content = file.read()
    known = _names(path, content)
    file.truncate(content.rfind(b'\n') + 1)
    lines = [
      _text({'fingerprint': name, 'config': portable(to_tree(config))}) + '\n'
      for name, config in configs.items()
      if name not in known
    ]
    file.write(''.join(lines).encode())
    file.flush()
    os.fsync(file.fileno())


def _path(results: pathlib.Path) -> pathlib.Path:
  return results / 'configs.jsonl'


def _names(path: pathlib.Path, content: bytes) -> dict[str, str]:
  whole, _, torn = content.rpartition(b'\n')
  if torn:
    _say(f'{path}: its last line was cut short and is dropped')
  found = {}
  for number, line in enumerate(whole.split(b'\n') if whole else [], start=1):
    try:
      name, tree = _line(line)
    except UserError as error:
      raise UserError(f'{path}:{number}: {error}') from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
      raise UserError(f'{path}:{number}: is no line of a run: {error!r}') from None
    found[name] = tree
  return found


@functools.cache  # the file is read after every run, and has a thousand lines
def _line(line: bytes) -> tuple[str, str]:
  entry = json.loads(line)
  return entry['fingerprint'], canonical(stored(entry['config']))


@functools.cache  # said once
def _say(message: str) -> None:
  print(message, file=sys.stderr)


def _text(tree: Any) -> str:
  return json.dumps(tree, sort_keys=True, separators=(',', ':'), allow_nan=False)
