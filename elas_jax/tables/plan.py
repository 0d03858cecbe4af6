"""Which runs a table is made of, which of them are recorded, and which are still to do."""

import copy
import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from elas_jax.common.errors import UserError
from elas_jax.config.cli import load_config
from elas_jax.config.config import Config
from elas_jax.config.overrides import apply, of_another_kind
from elas_jax.config.parsing import parse
from elas_jax.run.record import DIVERGED, Record, Recorded
from elas_jax.tables.planned_run import Run, looked, name_of_start, with_starts
from elas_jax.tables.table import RATE, Rates, Row, Table

START = 'start'  # stands for the workdir that a run starts from


@dataclasses.dataclass(frozen=True)
class Search:
  """The rates that are tried for a row; `best` is None while a run of `grid` is to do.

  `likely` is the best of those that are known, also by runs of before a revision, which
  are to be made again: by it grids stay as they were, and rows that were made are shown.
  """

  row: Row
  grid: dict[float, Run]
  best: float | None
  likely: float | None
  score: float | None = None  # of `likely`, the lower the better
  at_the_edge: bool = False  # `likely`, of those that are known

  @property
  def size(self) -> str:
    """At which it is done, of one that has a grid."""
    return next(iter(self.grid.values())).size

  @property
  def diverged(self) -> bool:
    """Whether no rate of its grid ends with a finite loss."""
    return bool(self.grid) and all(x.status == DIVERGED for x in self.grid.values())


@dataclasses.dataclass(frozen=True)
class Line:
  """A row at a size; it has no runs while its learning rate is not known."""

  row: Row
  size: str
  runs: tuple[Run, ...]
  search: Search | None

  @property
  def config(self) -> Config | None:
    return dataclasses.replace(self.runs[0].config, seed=0) if self.runs else None


@dataclasses.dataclass(frozen=True)
class At:
  """A table at a scale and a size: what its rows may ask for."""

  plan: 'Plan'
  size: str

  @property
  def scale(self) -> str:
    return self.plan.scale_name

  def config(self, method: str) -> Config:
    """With the learning rate of its config file."""
    return self.plan.config(Row(method, method), self.size)


class Plan:
  """A table at a scale, by a record.

  Args:
    overrides: '--config.FIELD=VALUE' of every run whose kinds have the field.
    seeds: of a row; None: as many as the scale has.
  """

  def __init__(
    self,
    table: Table,
    scale: str,
    record: Record,
    overrides: Sequence[str] = (),
    seeds: int | None = None,
  ):
    self.table, self.scale_name, self.record = table, scale, record
    self.scale, self.overrides = table.scales[scale], tuple(overrides)
    self.seeds = seeds or self.scale.seeds
    self._searches: dict[tuple[str, str], Search] = {}
    self._taken: set[str] = set()  # names of flags

  def by(self, record: Record) -> 'Plan':
    """The same by another record."""
    return Plan(self.table, self.scale_name, record, self.overrides, self.seeds)

  @functools.cached_property
  def lines(self) -> list[Line]:
    found = []
    for at in (At(self, size) for size in self.scale.sizes):
      rows = self.table.rows(at)
      _check_labels([row.label for row in rows])
      found += [self._line(row, at.size) for row in rows]
    return found

  @property
  def searches(self) -> list[Search]:
    _ = self.lines
    return [search for search in self._searches.values() if search.grid]

  @property
  def runs(self) -> dict[str, Run]:
    """All that are known so far by their keys, searches first."""
    searched = [run for search in self.searches for run in search.grid.values()]
    rows = [x for line in self.lines for run in line.runs for x in with_starts(run)]
    return {run.key: run for run in searched + rows}

  def todo(self, lines: Sequence[Line]) -> list[Run]:
    """What these lines still need: searches first, then rows whose rate is chosen."""
    own, every = {id(x.search) for x in lines}, len(lines) == len(self.lines)
    searches = [x for x in self.searches if every or id(x) in own]
    runs = [run for search in searches for run in search.grid.values()]
    ready = [x for x in lines if x.search is None or x.search.best is not None]
    runs += [x for line in ready for run in line.runs for x in with_starts(run)]
    found: dict[str, Run] = {}
    for run in runs:
      if not run.recorded and not run.without_start:
        found.setdefault(run.key, run)  # rows that are one run have the name of the first
    return list(found.values())

  def check(self) -> None:
    """Refuses rows with fields that cannot be, also while their rates are not known.

    And overrides whose field the kinds of no run have.
    """
    for line in self.lines:
      self.config(line.row, line.size)
    for flag in self.overrides:
      if flag.partition('=')[0] not in self._taken:
        raise UserError(f'{flag}: a field of kinds that no row of this table has')

  def config(self, row: Row, size: str, steps: int = 0) -> Config:
    """By the scale's fields, then the caller's, then the row's.

    Of the caller's only those that the kinds of this run have: rows have different ones.
    `steps` are those of the run, if they are not the row's own.
    """
    given = {flag.partition('=')[0]: flag for flag in self.overrides}
    if flag := given.get('--config.seed'):
      raise UserError(f'{flag}: rows have seeds of their own; --seeds says how many')
    for name in row.fields:
      if flag := given.get(f'--config.{name}'):
        raise UserError(f'{flag}: this table sets {name} itself, row by row')
    own = row.fields | ({'train.steps': steps, 'eval.every': steps} if steps else {})
    if row.after:
      own['restore'] = START  # of which run depends on the seed
    own, of_kinds = _as_flags(own), _as_flags(self.scale.fields_of_kinds)
    flags = of_kinds | _as_flags(self.scale.fields) | given | own
    some = frozenset((given.keys() | of_kinds.keys()) - own.keys())
    spec = (row.config or self.scale.config).format(size=size, method=row.method)
    config, taken = _made(spec, tuple(flags.values()), some)
    self._taken |= taken
    return config

  def search(self, row: Row, size: str) -> Search | None:
    """Of the row whose rate this row takes; None if rates are not looked for."""
    rates = self.scale.rates
    given = any(flag.startswith(f'--config.{RATE}=') for flag in self.overrides)
    if rates is None or given or RATE in row.fields:
      return None
    searched, size = row.searched, rates.size(size)
    name = searched.label, size
    if name not in self._searches:
      self._searches[name] = self._search(searched, size)
    if self._searches[name].row != searched:
      raise UserError(f'{searched.label}: two rows are searched under this label')
    return self._searches[name]

  def _search(self, row: Row, size: str) -> Search:
    rates = self.scale.rates.at(size)
    ladder = rates.ladder(row.method)
    if len(ladder) == 1:  # nothing to look for
      return Search(row, {}, *ladder, *ladder)
    if not ladder[rates.first]:
      raise UserError(f'{row.label}: its ladder of {len(ladder)} rates has no first ones')
    steps = max(round(self.config(row, size).train.steps * rates.share), 10)
    tried = lambda rate: self._run(row, size, rates.seed, rate, steps)
    score = lambda run: _score(run, rates)
    likely = lambda run: score(run.recorded or run.before)
    # What was tried stays, also where the best of the first is now inside of them.
    every = {rate: tried(rate) for rate in ladder}
    first = ladder[rates.first]
    grid = {x: run for x, run in every.items() if x in first or run.recorded or run.before}
    while rate := _next(ladder, {x: likely(run) for x, run in grid.items()}):
      grid[rate] = every[rate]
    grid = dict(sorted(grid.items()))
    best = _best({x: score(run.recorded) for x, run in grid.items()})
    known = {x: s for x, run in grid.items() if (s := likely(run)) is not None}
    guess = _best(known)
    edge = guess is not None and guess in (min(known), max(known))
    return Search(row, grid, best, guess, known.get(guess), edge)

  def _line(self, row: Row, size: str) -> Line:
    search, first = self.search(row, size), self.table.first_seed
    if search and search.likely is None:
      return Line(row, size, (), search)
    rate, seeds = search and search.likely, range(first, first + self.seeds)
    return Line(
      row, size, tuple(self._run(row, size, seed, rate) for seed in seeds), search
    )

  def _run(self, row: Row, size: str, seed: int, rate: float | None, steps: int = 0) -> Run:
    config = dataclasses.replace(self.config(row, size, steps), seed=seed)
    if rate is not None:  # sooner done here than by a config file for each
      optimizer = dataclasses.replace(config.optimizer, learning_rate=rate)
      config = dataclasses.replace(config, optimizer=optimizer)
    after = self._after(row, size, seed)
    if after:
      config = dataclasses.replace(config, restore=name_of_start(after, row.converter))
    recorded = self.record.find(config)
    before = None if recorded else self.record.before(config)
    look = None if steps else row.look
    if recorded and look and not looked(recorded, look):
      recorded = None
    label = f'{row.label} at {rate:g}' if steps else row.label
    return Run(label, size, config, recorded, before, after, row.converter, row.made, look)

  def _after(self, row: Row, size: str, seed: int) -> Run | None:
    """The run that a run of this row starts from, of the same seed."""
    if row.after is None:
      return None
    search = self.search(row.after, size)
    if search:
      raise UserError(
        f'row {row.label!r}: starts from {row.after.label!r}, whose fields must have '
        f'{RATE}: a rate that is searched is not known beforehand'
      )
    return self._run(row.after, size, seed, None)


def _check_labels(labels: Sequence[str]) -> None:
  """Raises UserError if they cannot be told apart on a page or on a command line."""
  for label in labels:
    if labels.count(label) > 1 or not label or set(label) & set(',|\n'):
      raise UserError(
        f'row {label!r}: a label must be one of a kind, not empty, and without commas and |'
      )


def _score(run: Recorded | None, rates: Rates) -> float | None:
  """The lower the better; infinite if it diverged, None if it is not known."""
  metric = rates.metric[0]
  if run is None or run.status == DIVERGED:
    return run and math.inf
  if metric not in run.values:
    raise UserError(f'run {run.fingerprint} of the record has no {metric} to choose by')
  return run.values[metric] if rates.best is min else -run.values[metric]


def _best(scores: dict[float, float | None]) -> float | None:
  """The rate of the lowest score, if all are known and one is finite."""
  if None in scores.values() or min(scores.values(), default=math.inf) == math.inf:
    return None
  return min(scores, key=lambda rate: (scores[rate], rate))


def _next(ladder: Sequence[float], scores: dict[float, float | None]) -> float | None:
  """The rate beyond the edge at which the best of those tried is, if there is one.

  Where all diverge, the next lower one.
  """
  best, tried = _best(scores), [rate for rate in ladder if rate in scores]
  if best is None and None not in scores.values():
    best = tried[0]
  below, above = ladder.index(tried[0]) - 1, ladder.index(tried[-1]) + 1
  if best == tried[0] and below >= 0:
    return ladder[below]
  return ladder[above] if best == tried[-1] and above < len(ladder) else None


@functools.cache  # a table asks for all its configs after every run
def _made(
  spec: str, flags: tuple[str, ...], some: frozenset[str]
) -> tuple[Config, frozenset[str]]:
  """The config of these flags, less those of `some` (their names) of other kinds.

  And the names of those that were taken.
  """
  tree, taken = copy.deepcopy(_loaded(spec)), set()
  for flag in sorted(flags, key=lambda flag: flag.partition('=')[0].count('.')):
    name = flag.partition('=')[0]
    if name not in some or not of_another_kind(tree, name.removeprefix('--config.')):
      apply(tree, [flag])
      taken.add(name)
  return parse(tree), frozenset(taken)


@functools.cache
def _loaded(spec: str) -> ConfigDict:
  return load_config(spec, ())


def _as_flags(fields: dict[str, Any]) -> dict[str, str]:
  return {f'--config.{name}': f'--config.{name}={value}' for name, value in fields.items()}
