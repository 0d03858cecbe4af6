"""The sides of a comparison: RUNs as a command line names them, read and grouped by seed.

A RUN is a workdir, a row of a table of recorded runs, or the fingerprint of one of them.
Workdirs, and fingerprints, that differ in nothing but the seed are one side.
"""

import dataclasses
import functools
import os
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any

from elas_jax.common.errors import UserError
from elas_jax.common.limits import shown
from elas_jax.common.places import place
from elas_jax.run.record import DIVERGED, FINISHED, Recorded, key, read
from elas_jax.tables.past_run import UNFINISHED, data_record, run_of
from elas_jax.tables.table_files import TableRow, find_row, rows_with

RECORD = 'runs.jsonl'
FINGERPRINT = re.compile('[0-9a-f]{12}')


@dataclasses.dataclass(frozen=True)
class Side:
  """What one column of a comparison is of.

  Attributes:
    given: the RUNs that name it.
    runs: finished ones, by seed.
    left_out: why others are not compared, a line each.
    rows: of tables, that these runs are in.
    example: a run whose config is that of the side; None where none is known.
    notes: what else a reader must know of them.
    data: the records of the data of its workdirs, where checkpoints keep them.
  """

  label: str
  given: tuple[str, ...]
  runs: dict[int, Recorded]
  left_out: tuple[str, ...]
  rows: tuple[TableRow, ...]
  example: Recorded | None
  notes: tuple[str, ...] = ()
  data: tuple[dict[str, Any], ...] = ()


@dataclasses.dataclass(frozen=True)
class _Given:
  """A RUN: a row of a table or a run, and `identity`, what two names of one share."""

  name: str
  identity: tuple
  row: TableRow | None = None
  run: Recorded | None = None


Runs = Callable[[], dict[str, Recorded]]  # of the record, by fingerprint


def read_sides(
  names: Sequence[str], results: pathlib.Path, scale: str | None = None
) -> list[Side]:
  """The sides in the order in which they are first named.

  Raises:
    UserError: a RUN is none, is there twice, or cannot be read; or there is one side.
  """
  runs = functools.cache(lambda: _by_fingerprint(results / RECORD))
  given = [_given(name, results, scale, runs) for name in names]
  seen: dict[tuple, str] = {}
  for one in given:
    if one.identity in seen:
      raise UserError(f'{one.name} and {seen[one.identity]}: the same RUN twice')
    seen[one.identity] = one.name
  if len(given) < 2:
    raise UserError('RUN: only one given; a comparison needs two or more')
  groups = _grouped(given)
  if len(groups) < 2:
    raise UserError(
      f'{", ".join(names)}: these differ in nothing but the seed, so that they are one '
      'side; give what to compare it with'
    )
  labels = _labels(groups)
  return [
    _side_of_row(group[0], label, results, runs)
    if group[0].row
    else _side_of_runs(group, label, results)
    for group, label in zip(groups, labels)
  ]


def _by_fingerprint(path: pathlib.Path) -> dict[str, Recorded]:
  runs = read(path)
  return {run.key: run for run in runs} | {run.fingerprint: run for run in runs}


def _given(name: str, results: pathlib.Path, scale: str | None, runs: Runs) -> _Given:
  path = place('RUN', name)
  if name and path.is_dir():
    return _Given(name, ('workdir', path.resolve()), run=run_of(path))
  if FINGERPRINT.fullmatch(name):
    if name not in runs():
      raise UserError(f'{name}: no run of {results / RECORD} has that fingerprint')
    run = runs()[name]
    return _Given(name, ('run', run.fingerprint), run=run)
  if '/' in name:
    row = find_row(results, name, scale)
    return _Given(name, ('row', row.scale, *row.names), row=row)
  raise UserError(
    f'{shown(name)}: neither a folder, nor TABLE/ROW, nor a fingerprint of 12 hex digits'
  )


def _grouped(given: list[_Given]) -> list[list[_Given]]:
  """Those of one side together; the same config and seed at another commit is another."""
  groups: dict[tuple, list[_Given]] = {}
  for one in given:
    groups.setdefault(_config_of(one), []).append(one)
  found: dict[tuple, list[_Given]] = {}
  for same, group in groups.items():
    repeated = len({one.run and one.run.parsed.seed for one in group}) < len(group)
    for one in group:
      of_commit = found.setdefault((same, repeated and one.run.commit), [])
      for other in of_commit:
        if one.run.parsed.seed == other.run.parsed.seed:
          raise UserError(
            f'{other.name} and {one.name}: the same config and seed at the same commit; '
            'they are one run, made twice'
          )
      of_commit.append(one)
  return list(found.values())


def _config_of(one: _Given) -> tuple:
  if one.row:
    return one.identity
  alike = dataclasses.replace(one.run.parsed, seed=0)
  return one.identity[0], key(alike, one.run.revisions)


def _labels(groups: list[list[_Given]]) -> list[str]:
  """The shortest names by which all sides are told apart."""
  choices = [
    group[0].row.names if group[0].row else _names([one.name for one in group])
    for group in groups
  ]
  found = []
  for own in choices:
    others = {name for names in choices if names is not own for name in names}
    found.append(next((name for name in own if name not in others), own[-1]))
  if len(set(found)) < len(found):  # a row at two scales, or of two commits
    return [f'{label} ({number})' for number, label in enumerate(found, start=1)]
  return found


def _names(names: list[str]) -> tuple[str, ...]:
  """'runs/elas_0' and 'runs/elas_1' are elas, or runs/elas, or the two."""
  names = [name.rstrip('/') or name for name in names]
  common = os.path.commonprefix(names)
  rests = [name[len(common) :] for name in names]
  if len(names) > 1 and any(rest[:1].isdigit() for rest in rests):
    common = common.rstrip('0123456789')  # of seeds 10 and 11
  elif common.endswith('/'):
    common = ''  # folders that have nothing in common but where they lie
  common = common.rstrip('/_-. ')
  last = ' + '.join(os.path.basename(name) or name for name in names)
  return *filter(None, (os.path.basename(common), common)), last, ' + '.join(names)


def _side_of_row(given: _Given, label: str, results: pathlib.Path, runs: Runs) -> Side:
  row, path = given.row, results / RECORD
  of_row = {}
  for seed, name in row.runs.items():
    if name not in runs():
      raise UserError(
        f'{results / "tables" / row.table}.json: names the run {name}, which {path} lacks'
      )
    of_row[seed] = runs()[name]
  before = [runs()[name] for name, _ in row.before.values() if name in runs()]
  lines = {
    seed: f'made before a revision ({", ".join(revisions)}), not compared'
    for seed, (_, revisions) in row.before.items()
  }
  lines = dict.fromkeys(row.missing, 'not run') | lines | _left_out(of_row)
  return Side(
    label=label,
    given=(given.name,),
    runs={seed: run for seed, run in of_row.items() if run.status == FINISHED},
    left_out=by_reason(lines),
    rows=(row,),
    example=next(iter([*of_row.values(), *before]), None),
  )


def _side_of_runs(group: list[_Given], label: str, results: pathlib.Path) -> Side:
  of = {one.run.parsed.seed: one.run for one in group}
  finished = {seed: run for seed, run in of.items() if run.status == FINISHED}
  for one in group:
    if one.run.status == UNFINISHED and not finished:
      raise UserError(
        f'{one.name}: not finished: its metrics.jsonl ends at step {one.run.step} of '
        f'{one.run.parsed.train.steps}; it was stopped, diverged, or still trains'
      )
  rows, notes = [], {}
  for one in group:
    found = rows_with(results, one.run.fingerprint) if one.identity[0] == 'run' else []
    rows += [row for row in found if row not in rows]
    for row in found:
      for name, lacking in row.before.values():
        if name == one.run.fingerprint:
          said = f'made before a revision ({", ".join(lacking)}), compared all the same'
          notes[one.run.parsed.seed] = said
  return Side(
    label=label,
    given=tuple(one.name for one in group),
    runs=finished,
    left_out=by_reason(_left_out(of)),
    rows=tuple(rows),
    example=next(iter(finished.values()), group[0].run),
    notes=by_reason(notes),
    data=tuple(found for found in map(_data, group) if found),
  )


def _data(given: _Given) -> dict[str, Any] | None:
  kind, place_of_run = given.identity
  return data_record(place_of_run) if kind == 'workdir' else None


def by_reason(reasons: dict[int, str]) -> tuple[str, ...]:
  """Of seed -> reason a line for each reason."""
  seeds: dict[str, list[int]] = {}
  for seed, reason in sorted(reasons.items()):
    seeds.setdefault(reason, []).append(seed)
  return tuple(f'{seeds_text(of)}: {reason}' for reason, of in seeds.items())


def seeds_text(seeds: Sequence[int]) -> str:
  return f'seed{"s" if len(seeds) > 1 else ""} {", ".join(map(str, sorted(seeds)))}'


def _left_out(runs: dict[int, Recorded]) -> dict[int, str]:
  said = {
    DIVERGED: lambda run: f'diverged at step {run.step}',
    UNFINISHED: lambda run: f'not finished, at step {run.step} of {run.parsed.train.steps}',
  }
  return {s: said[run.status](run) for s, run in runs.items() if run.status in said}
