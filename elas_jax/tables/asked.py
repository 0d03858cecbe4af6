"""How the scales of a table were asked for, where it is not as they are declared.

RESULTS/asked.json: table -> scale -> overrides of every run and seeds of a row. What is
rendered follows from the record and from this.
"""

import contextlib
import fcntl
import json
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from elas_jax.common.errors import UserError
from elas_jax.common.limits import shown
from elas_jax.common.places import write_text
from elas_jax.run.record import LEFT_OUT


class Asked(NamedTuple):
  overrides: tuple[str, ...] = ()  # in order, less those of no number
  seeds: int | None = None  # None: as many as the scale has


def overrides(flags: Sequence[str]) -> tuple[str, ...]:
  """Of these flags, what a run depends on; the last of a name counts."""
  found = {flag.partition('=')[0]: flag for flag in flags}
  left_out = {f'--config.{field}' for field in LEFT_OUT}
  return tuple(sorted(flag for name, flag in found.items() if name not in left_out))


def read(results: pathlib.Path, table: str, scale: str) -> Asked:
  found = _read(results).get(table, {}).get(scale, {})
  return Asked(tuple(found.get('overrides', ())), found.get('seeds'))


def write(results: pathlib.Path, table: str, scale: str, asked: Asked) -> None:
  """Where it is another than before; several processes may do so at the same time."""
  with alone(results):
    if read(results, table, scale) == asked:
      return
    tree = _read(results)
    said = {'overrides': list(asked.overrides), 'seeds': asked.seeds}
    tree.setdefault(table, {})[scale] = {k: x for k, x in said.items() if x}
    text = json.dumps(tree, indent=2, sort_keys=True)
    write_text(results / 'asked.json', text + '\n')


def _read(results: pathlib.Path) -> dict[str, Any]:
  path = results / 'asked.json'
  try:
    tree = json.loads(path.read_text()) if path.exists() else {}
    _check(tree)
  except (ValueError, OSError) as error:
    raise UserError(f'{path}: is damaged: {error}') from None
  return tree


def _check(tree: Any) -> None:
  """Raises ValueError for what is of another form."""
  if not isinstance(tree, dict) or not all(isinstance(x, dict) for x in tree.values()):
    raise ValueError('must be table -> scale -> overrides and seeds')
  parts = ((f'{name}.{x}', y) for name, table in tree.items() for x, y in table.items())
  for where, said in parts:
    if not isinstance(said, dict):
      raise ValueError(f'{where}={shown(said)}: must be overrides and seeds')
    flags, seeds = said.get('overrides', []), said.get('seeds', 1)
    if not isinstance(flags, list) or not all(isinstance(x, str) for x in flags):
      raise ValueError(f'{where}.overrides={shown(flags)}: must be a list of texts')
    if type(seeds) is not int or seeds < 1:
      raise ValueError(f'{where}.seeds={shown(seeds)}: must be an integer of at least 1')


@contextlib.contextmanager
def alone(folder: pathlib.Path) -> Iterator[None]:
  """Between its reading and its writing of files there no other process writes them."""
  try:
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
  except OSError as error:
    raise UserError(f'{folder}: cannot be written: {error.strerror}') from None
  try:
    fcntl.flock(handle, fcntl.LOCK_EX)
    yield
  finally:
    os.close(handle)
