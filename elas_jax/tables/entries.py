"""A row as its table shows it, and what tables say of their entries."""

import dataclasses
import functools
import statistics
from collections.abc import Sequence
from typing import Any

from elas_jax.common.paired import NOT_KNOWN, Paired, paired, with_spread
from elas_jax.run.record import DIVERGED, FINISHED
from elas_jax.tables.plan import Line, Plan
from elas_jax.tables.planned_run import Run
from elas_jax.tables.table import Metric, Row


@dataclasses.dataclass(frozen=True)
class Entry:
  """A row at a size, or a run of a search, and how it went."""

  row: Row
  size: str
  label: str
  runs: tuple[Run, ...]
  rate: float | None
  at_the_edge: bool
  lacking: str = ''  # why it has no runs

  def of(self, status: str) -> list[Run]:
    return [run for run in self.runs if run.status == status]

  def values(self, name: str) -> dict[int, float]:
    """Of finished runs, by seed."""
    found = {run.seed: run.values.get(name) for run in self.of(FINISHED)}
    return {seed: x for seed, x in found.items() if x is not None}

  @functools.cached_property
  def size_of(self) -> dict[str, float]:
    """Parameters, bytes and FLOPs, as they are recorded; {} if no run is."""
    found = (run.recorded or run.before for run in self.runs)
    return next((x.size for x in found if x), {})

  @functools.cached_property
  def mean(self) -> dict[str, float]:
    """Of every value that all finished runs have."""
    return {name: statistics.mean(x) for name, x in self._known.items()}

  @functools.cached_property
  def std(self) -> dict[str, float]:
    """Sample standard deviations; one run has none."""
    return {n: statistics.stdev(x) for n, x in self._known.items() if len(x) > 1}

  @functools.cached_property
  def _known(self) -> dict[str, list[float]]:
    finished = self.of(FINISHED)
    names = finished[0].values if finished else ()
    found = {name: list(self.values(name).values()) for name in names}
    return {name: x for name, x in found.items() if len(x) == len(finished)}

  def shown(self, metric: Metric) -> str:
    name, _, digits = metric
    if name not in self.mean:
      return '-'
    text = with_spread(self.mean[name], self.std.get(name), digits)
    finished, diverged = len(self.of(FINISHED)), len(self.of(DIVERGED))
    if finished == len(self.runs):
      return text
    fallen = f', {diverged} diverged' if diverged else ''
    return f'{text} ({finished} of {len(self.runs)} seeds{fallen})'

  @property
  def non_finite(self) -> str:
    """Whether a loss was not finite, run by run; each step of each run is checked."""
    parts = [f'seed {r.seed} at step {r.recorded.step}' for r in self.of(DIVERGED)]
    if finished := len(self.of(FINISHED)):
      parts.append(f'none in {finished} run{"s" if finished > 1 else ""}')
    if missing := len(self.of('not run')):
      parts.append(f'{missing} not run yet')
    return ', '.join(parts) or self.lacking


def of_line(line: Line) -> Entry:
  search = line.search
  edge = bool(search and search.at_the_edge)
  rate = line.config and line.config.optimizer.learning_rate
  lost = search and search.diverged
  why = 'diverges at every rate of its grid' if lost else 'no learning rate yet'
  return Entry(line.row, line.size, line.row.label, line.runs, rate, edge, why)


def of_searches(plan: Plan) -> list[Entry]:
  """The runs of searches; of the rates chosen it is said if they are at the edge."""
  return [
    Entry(x.row, r.size, r.label, (r,), rate, rate == x.likely and x.at_the_edge)
    for x in plan.searches
    for rate, r in x.grid.items()
  ]


@dataclasses.dataclass(frozen=True)
class Gap:
  """Row `one` less row `other`, seed by seed."""

  one: Entry
  other: Entry

  def of(self, name: str) -> Paired:
    return paired(self.one.values(name), self.other.values(name))

  def line(self, metrics: Sequence[Metric]) -> str:
    name = f'{self.one.label} - {self.other.label} ({self.one.size})'
    found = [(self.of(metric), header, digits) for metric, header, digits in metrics]
    known = [(x, header, digits) for x, header, digits in found if x.seeds]
    if not known:
      return f'{name}: {NOT_KNOWN}'
    parts = [
      f'{header} {with_spread(x.mean, x.deviation, digits, "+")}'
      for x, header, digits in known
    ]
    (first, header, digits), *_ = known
    alone = [
      f'{label} alone has {_seeds(seeds)}'
      for label, seeds in zip(
        (self.one.label, self.other.label), (first.only_first, first.only_second)
      )
      if seeds
    ]
    return (
      f'{name}: {"; ".join(parts)} (paired, {_seeds(first.seeds)}). By {header}: '
      f'{"; ".join([first.verdict(self.one.label, digits), *alone])}'
    )


def _seeds(seeds: Sequence[int]) -> str:
  return f'seed{"s" if len(seeds) > 1 else ""} {", ".join(map(str, seeds))}'


def gap_lines(
  entries: Sequence[Entry], pairs: Sequence[tuple[str, str]], metrics: Sequence[Metric]
) -> list[str]:
  """Of every pair of rows that are there, at every size."""
  of = {(x.label, x.size): x for x in entries}
  sizes = dict.fromkeys(x.size for x in entries)
  known = (tuple((name, size) for name in pair) for size in sizes for pair in pairs)
  return [Gap(of[a], of[b]).line(metrics) for a, b in known if a in of and b in of]


def ranking(entries: Sequence[Entry], metric: Metric, best: Any = max) -> str:
  """The line that says the order by mean, the best first, with spread and parameters.

  And which rows are not shown to differ from the best, seed by seed.
  """
  name, header, _ = metric
  known = [x for x in entries if name in x.mean]
  order = sorted(known, key=lambda x: x.mean[name], reverse=best is max)
  text = ', '.join(
    f'{x.label} {x.shown(metric)} ({x.size_of["parameters"]:,})' for x in order
  )
  rest = [x.label for x in entries if x not in known]
  missing = f'; without a value: {", ".join(rest)}' if rest else ''
  # An order of means is not one of methods.
  like = [x.label for x in order[1:] if not Gap(order[0], x).of(name).shown]
  same = f'; not shown to differ from the first: {", ".join(like)}' if like else ''
  return f'By mean {header} (parameters): {text}{missing}{same}.'
