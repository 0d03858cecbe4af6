"""Tables as files that name recorded runs: RESULTS/tables/TABLE.json beside runs.jsonl.

A table has scales, a scale has its label, its metrics as [name, title, digits], and rows;
a row names its runs by seed and fingerprint, the seeds that are missing, and the runs of
before a revision of the code, which none of its numbers come from.
"""

import dataclasses
import functools
import json
import pathlib
from typing import Any

from elas_jax.common.errors import UserError
from elas_jax.common.limits import quoted, shown
from elas_jax.tables.table import Metric


@dataclasses.dataclass(frozen=True)
class TableRow:
  """A row of a table at one scale.

  Attributes:
    scale: its name, and `scale_label` what stands above its numbers.
    runs: seed -> fingerprint of those that count.
    missing: seeds that are not run.
    before: seed -> (fingerprint, revisions that it lacks).
  """

  table: str
  scale: str
  scale_label: str
  metrics: tuple[Metric, ...]
  label: str
  size: str
  rate: float | None
  at_the_edge: bool
  runs: dict[int, str]
  missing: tuple[int, ...]
  before: dict[int, tuple[str, tuple[str, ...]]]

  @property
  def names(self) -> tuple[str, str, str]:
    """Shorter and longer names, none of them with its scale."""
    return (
      self.label,
      f'{self.table}/{self.label}',
      f'{self.table}/{self.label}/{self.size}',
    )

  def fingerprints(self) -> set[str]:
    return {*self.runs.values(), *(name for name, _ in self.before.values())}


def table_names(results: pathlib.Path) -> list[str]:
  return sorted(path.stem for path in (results / 'tables').glob('*.json'))


def find_row(results: pathlib.Path, name: str, scale: str | None) -> TableRow:
  """The row TABLE/ROW or TABLE/ROW/SIZE, of the only scale or this one.

  Raises:
    UserError: there is none, or there are several.
  """
  table, _, rest = name.partition('/')
  names = table_names(results)
  if table not in names:
    raise UserError(
      f'{shown(name)}: no such folder, and no table {shown(table)} in '
      f'{results / "tables"}; there are '
      f'{quoted(names) or "none"}'
    )
  rows = _of_scale(results, table, scale, name)
  labels = list(dict.fromkeys(row.label for row in rows))
  # A label may have a slash itself.
  label, _, size = (rest, '', '') if rest in labels else rest.rpartition('/')
  label, size = (label, size) if label in labels else (rest, '')
  rows = [row for row in rows if row.label == label]
  if not rows:
    raise UserError(f'{shown(name)}: no row {shown(label)}; there are {quoted(labels)}')
  sizes = [row.size for row in rows]
  found = [row for row in rows if row.size == size] if size else rows
  if not found:
    raise UserError(
      f'{shown(name)}: no size {shown(size)} of that row; there are {quoted(sizes)}'
    )
  if len(found) > 1:
    raise UserError(
      f'{shown(name)}: a row of several sizes; give one of '
      + quoted(f'{table}/{label}/{size}' for size in sizes)
    )
  return found[0]


def rows_with(results: pathlib.Path, fingerprint: str) -> list[TableRow]:
  """The rows of all tables that a run is in, also as one of before a revision."""
  return [
    row
    for name in table_names(results)
    for row in read_table(results, name)
    if fingerprint in row.fingerprints()
  ]


def _of_scale(
  results: pathlib.Path, table: str, scale: str | None, name: str
) -> list[TableRow]:
  rows = read_table(results, table)
  scales = list(dict.fromkeys(row.scale for row in rows))
  if scale is None and len(scales) > 1:
    raise UserError(
      f'{shown(name)}: a table of several scales; give --scale, one of ' + quoted(scales)
    )
  if scale is not None and scale not in scales:
    raise UserError(
      f'--scale={shown(scale)}: no scale of table {shown(table)}; there are '
      f'{quoted(scales) or "none"}'
    )
  return [row for row in rows if scale in (None, row.scale)]


def read_table(results: pathlib.Path, table: str) -> tuple[TableRow, ...]:
  """All rows of all scales.

  Raises:
    UserError: the file cannot be read, or is no table.
  """
  path = results / 'tables' / f'{table}.json'
  try:
    return _rows(table, path.read_bytes())
  except OSError as error:
    raise UserError(f'{path}: cannot be read: {error.strerror}') from None
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise UserError(f'{path}: is no table of recorded runs: {error!r}') from None


@functools.lru_cache(maxsize=256)
def _rows(table: str, content: bytes) -> tuple[TableRow, ...]:
  return tuple(
    _row(table, scale, about, row)
    for scale, about in json.loads(content)['scales'].items()
    for row in about['rows']
  )


def _row(table: str, scale: str, about: dict[str, Any], row: dict[str, Any]) -> TableRow:
  return TableRow(
    table=table,
    scale=scale,
    scale_label=about['label'],
    metrics=tuple((name, title, int(digits)) for name, title, digits in about['metrics']),
    label=row['label'],
    size=row['size'],
    rate=row.get('rate'),
    at_the_edge=row.get('at_the_edge', False),
    runs={int(seed): name for seed, name in row['runs'].items()},
    missing=tuple(row.get('missing', ())),
    before={
      int(seed): (name, tuple(revisions))
      for seed, (name, revisions) in row.get('before', {}).items()
    },
  )
