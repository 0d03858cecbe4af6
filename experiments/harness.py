"""What the table scripts share: their command line, the loop over runs, result files.

A script describes its table as an `Experiment` and calls `main`. The runs of a call are
trained one after the other in this process; finished ones are skipped, a stopped one is
continued, and the result files are written anew after each. What is finished is read from
the folder of the runs and from the result file, at every writing: a clone has only the
file, and several calls may fill one table at the same time.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

from elas_jax.common.errors import UserError
from elas_jax.common.places import write_text
from elas_jax.config.cli import Parser, integer
from elas_jax.config.config import Config
from elas_jax.run.host_memory import keep_freed_memory
from elas_jax.run.metrics import describe_run, machine
from experiments import notes, report, result_files, revisions, stored_configs
from experiments.rates import RATE, all_chosen
from experiments.runs import (
  RUNS,
  SCALES,
  Row,
  Run,
  Scale,
  Setting,
  check_taken,
  execute,
  footprint,
  outcome,
)


def nothing(entries: list[dict[str, Any]]) -> tuple[Any, list[str]]:
  return {}, []


@dataclasses.dataclass(frozen=True)
class Family:
  """What tables of one kind of model have in common."""

  rates: str  # the table that chooses learning rates
  published: str  # header of the published values
  about: str  # how ours are meant, below a table
  shape: Callable[[list[Config]], str]  # of the configs of all rows, for a scale's label
  recipe: Callable[[list[Config]], str]  # how the proxies are trained
  # What the learning rate of a size and a method is called there.
  rate_name: Callable[[str, str], str] = lambda size, method: method


LANGUAGE = Family(
  rates='learning_rates',
  published=report.PUBLISHED,
  about=report.ABOUT,
  shape=notes.shape,
  recipe=notes.proxy_recipe,
)


@dataclasses.dataclass(frozen=True)
class Experiment:
  """A table.

  `conclude` takes its entries, returns what follows from them: JSON, lines. `cells` are
  further columns: of a config and how its runs went. `draw` makes figures of the runs
  that are in this call's folder, when all are done; `path` is that of the result file.
  """

  name: str
  title: str
  rows: Callable[[Setting, str], list[Row]]  # of a size; may follow from what is done
  family: Family = LANGUAGE
  scales: Mapping[str, Scale] = dataclasses.field(default_factory=lambda: SCALES)
  paper_sizes: tuple[str, ...] | None = None  # None: those of the scale
  metrics: tuple[tuple[str, str, int], ...] = report.METRICS
  cells: Callable[[Config, list[dict[str, Any]]], dict[str, str]] = lambda *_: {}
  draw: Callable[[list['Line'], pathlib.Path], None] = lambda *_: None
  conclude: Callable[[list[dict[str, Any]]], tuple[Any, list[str]]] = nothing
  notes: tuple[str, ...] = ()
  notes_of: Callable[[Setting, str], list[str]] = lambda setting, size: []  # of a size
  first_seed: int = 0
  seeds: int | None = None  # None: those of the scale

  def sizes(self, scale: str) -> tuple[str, ...]:
    return (scale == 'paper' and self.paper_sizes) or self.scales[scale].sizes


@dataclasses.dataclass
class Line:
  """A row of the table at one size: its runs, and how they went."""

  row: Row
  size: str
  runs: list[Run]
  outcomes: list[dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Table:
  """What one call works on; `lines` looks anew at what is done."""

  experiment: Experiment
  setting: Setting
  path: pathlib.Path  # of the result file, .json
  seeds: range  # that this call asks for; the file may have others
  only: str | None

  def lines(self) -> list[Line]:
    known = result_files.recorded_by_tables(self.path)
    of_file, lines = result_files.runs_of_file(self.path), []
    for size in self.experiment.sizes(self.setting.scale):
      for row in self.experiment.rows(self.setting, size):
        old = of_file.get((row.label, size), {})
        seeds = [] if row.problem else sorted({*self.seeds, *old})
        runs = [self.setting.run(row, size, seed) for seed in seeds]
        outcomes = [
          revisions.with_before(outcome(run, known, there), there, run.config)
          for run, there in ((run, old.get(run.seed)) for run in runs)
        ]
        lines.append(Line(row, size, runs, outcomes))
    return lines

  def todo(self) -> list[tuple[Line, Run]]:
    return [
      (line, run)
      for line in _chosen(self.lines(), self.only)
      for run, found in zip(line.runs, line.outcomes)
      if found['status'] == 'not run' and run.seed in self.seeds
    ]

  def command(self, lines: list[Line]) -> str:
    """What makes the whole table, wherever this call keeps its files."""
    first, scale = self.experiment.first_seed, self.setting.scale
    count = (
      max((run.seed for line in lines for run in line.runs), default=first) + 1 - first
    )
    usual = self.experiment.seeds or self.setting.scales[scale].seeds
    words = [f'--scale={scale}', *self.setting.overrides]
    words += [f'--seeds={count}'] if count != usual else []
    return f'python -m experiments.{self.experiment.name} {shlex.join(words)}'


def main(experiment: Experiment, arguments: list[str] | None = None) -> None:
  options, overrides = _parser(experiment).parse_known_args(arguments)
  scales = experiment.scales
  if options.scale not in scales:
    raise UserError(f'--scale={options.scale}: must be one of {", ".join(scales)}')
  seeds = options.seeds or experiment.seeds or scales[options.scale].seeds
  runs = options.runs
  # What a smoke run writes looks like a result and is none.
  fallback = runs / 'smoke/results' if options.scale == 'smoke' else 'experiments/results'
  results = pathlib.Path(options.results or fallback)
  rates = results / experiment.family.rates / f'{options.scale}.json'
  setting = Setting(options.scale, tuple(overrides), runs, rates, scales)
  if jax.default_backend() == 'cpu':
    keep_freed_memory()
  # Small programs too: the runs of a network take less time than compiling them.
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
  all_seeds = range(experiment.first_seed, experiment.first_seed + seeds)
  path = results / experiment.name / f'{options.scale}.json'
  _check_overrides(path, overrides)
  table = Table(experiment, setting, path, all_seeds, options.only)
  lines = table.lines()
  # Refuses a bad command line before anything is written.
  _chosen(lines, options.only)
  check_taken((run for line in lines for run in line.runs), overrides)
  done = {(x.row.label, x.size, r['seed']) for x in lines for r in _done([x])}
  result_files.check_recognised(path, done)
  known = {x['fingerprint'] for x in result_files.recorded(path).values()}
  # A file is not touched before there is something that it lacks.
  if not path.exists() or not {x['fingerprint'] for x in _done(lines)} <= known:
    _write(table)
  _run_all(table)
  experiment.draw(table.lines(), path)
  print(f'\n{path.with_suffix(".md").read_text()}')
  print(f'results: {path}, .md and .png')


def _done(lines: list[Line]) -> list[dict[str, Any]]:
  return [x for line in lines for x in line.outcomes if x['status'] != 'not run']


def _parser(experiment: Experiment) -> Parser:
  parser = Parser(
    prog=f'python -m experiments.{experiment.name}',
    description=experiment.title,
    epilog='Any field of the config can be overridden for all runs: '
    '--config.train.steps=100. Runs that are finished, in the folder of the runs or in '
    'the result file, are skipped; the same command continues.',
  )
  add = parser.add_argument
  add('--scale', required=True, help=f'one of {", ".join(experiment.scales)}')
  add('--seeds', type=integer(1, 10_000), help="runs of a row; default: the scale's")
  add('--only', help='run only these rows: labels, methods or sizes, with commas')
  parser.add_place('--runs', default=str(RUNS), help='folder of the runs')
  parser.add_place('--results', help='folder of the results; default: experiments/results')
  return parser


def _chosen(lines: list[Line], only: str | None) -> list[Line]:
  """The lines of --only: rows by label or, where no label is so called, by method."""
  if only is None:
    return lines
  wanted, labels = set(only.split(',')), {line.row.label for line in lines}
  sizes = {line.size for line in lines}
  accepted = labels | sizes | {line.row.method for line in lines}
  if unknown := sorted(wanted - accepted):
    shown = ', '.join(sorted(accepted))
    raise UserError(f'--only={only}: no row {unknown[0]!r}; there are {shown}')
  wanted_sizes, rows = (wanted & sizes) or sizes, wanted - sizes
  named = lambda row: row.label in rows or row.method in rows - labels
  return [x for x in lines if x.size in wanted_sizes and (not rows or named(x.row))]


def _run_all(table: Table) -> None:
  """Every run that is not done yet, with progress and a new result file after each.

  What is left to do is looked up before each: rows may be added by what is done, two of
  them may be one run, and another process may have done some.
  """
  todo = table.todo()
  print(f'{len(todo)} runs to do' if todo else 'all runs are done already')
  try:
    _run_each(table, todo)
  finally:
    if todo:
      report.plot(json.loads(table.path.read_text()), table.path.with_suffix('.png'))


def _run_each(table: Table, todo: list[tuple[Line, Run]]) -> None:
  start, number = time.monotonic(), 0
  while todo:
    (line, run), elapsed = todo[0], time.monotonic() - start
    left = ''
    if number:
      left = f', about {elapsed / number * len(todo) / 60:.0f} min left'
    print(
      f'--- run {number + 1} of {number + len(todo)}: {line.row.label}, {line.size}, seed '
      f'{run.seed}; {elapsed / 60:.1f} min elapsed{left}',
      flush=True,
    )
    execute(run)
    _write(table, plot=False)  # the runs may take less time than that
    number, todo = number + 1, table.todo()


def _entry(experiment: Experiment, line: Line) -> dict[str, Any]:
  row, first = line.row, line.runs[0] if line.runs else None
  mean, std = report.spread(line.outcomes)
  entry = {
    'label': row.label,
    'method': row.method,
    'size': line.size,
    'fields': row.fields,
    'problem': row.problem,
    'published': [
      {
        'size': size,
        'value': report.published_value(cell),
        'source': cell.source,
        'mark': cell.mark,
      }
      for size, cells in row.published.items()
      for cell in cells
      if line.size in (size, 'proxy', 'smoke')
    ],
    'runs': line.outcomes,
    'mean': mean,
    'std': std,
  }
  if first:
    config = dataclasses.replace(first.config, seed=0)
    entry |= footprint(config)
    entry['learning_rate'] = config.optimizer.learning_rate
    if cells := experiment.cells(config, line.outcomes):
      entry['cells'] = cells
  return entry


@contextlib.contextmanager
def _alone(folder: pathlib.Path) -> Iterator[None]:
  """Between its reading and its writing of a table no other process writes it."""
  folder.mkdir(parents=True, exist_ok=True)
  handle = os.open(folder, os.O_RDONLY)
  try:
    fcntl.flock(handle, fcntl.LOCK_EX)
    yield
  finally:
    os.close(handle)


def _write(table: Table, plot: bool = True) -> None:
  with _alone(table.path.parent):
    lines = table.lines()
    result = _result(table, lines)
    # First, so that no table has a run that it cannot recognise.
    stored_configs.append(table.path.parent.parent, _configs(lines))
    write_text(table.path, json.dumps(result, indent=2, allow_nan=False) + '\n')
    write_text(table.path.with_suffix('.md'), report.markdown(result))
    if plot:
      report.plot(result, table.path.with_suffix('.png'))


def _configs(lines: list[Line]) -> dict[str, Config]:
  """Of what is done, by name."""
  return {
    found['fingerprint']: run.config
    for line in lines
    for run, found in zip(line.runs, line.outcomes)
    if found['status'] != 'not run'
  }


def _result(table: Table, lines: list[Line]) -> dict[str, Any]:
  experiment, setting = table.experiment, table.setting
  entries = [_entry(experiment, line) for line in lines]
  summary, text = experiment.conclude(entries)
  configs = [run.config for line in lines for run in line.runs[:1]]
  done = all(r['status'] != 'not run' for entry in entries for r in entry['runs'])
  return {
    'title': experiment.title,
    'scale': setting.scale,
    'label': setting.scales[setting.scale].label.format(
      shape=experiment.family.shape(configs)
    ),
    'complete': done,
    'command': table.command(lines),
    'overrides': list(setting.overrides),
    'run': describe_run(),
    'machine': machine(),
    'metrics': report.shown(experiment.metrics, entries),
    'published': experiment.family.published,
    'about': experiment.family.about,
    'summary': summary,
    'text': [
      *revisions.lines(entries),
      *text,
      *experiment.notes,
      *_notes(table, lines, configs),
    ],
    'rows': entries,
  }


def _notes(table: Table, lines: list[Line], configs: list[Config]) -> list[str]:
  """Those that follow from the sizes and the scale."""
  setting = table.setting
  sizes = table.experiment.sizes(setting.scale)
  found = [note for size in sizes for note in table.experiment.notes_of(setting, size)]
  if setting.scale == 'proxy':
    family = table.experiment.family
    found.append(family.recipe(configs))
    if not any(x.startswith(f'--config.{RATE}=') for x in setting.overrides):
      rates = (
        family.rate_name(x.size, x.row.method)
        for x in lines
        if RATE not in x.row.fields and _done([x])
      )
      if names := dict.fromkeys(rates):
        chosen = all_chosen(setting.rates)
        found.append(notes.chosen_rates(names, chosen, family.rates))
  return found


def _check_overrides(path: pathlib.Path, overrides: list[str]) -> None:
  """Results of other settings are not written over."""
  if not path.exists():
    return
  old = json.loads(path.read_text())['overrides']
  if old != overrides:
    shown = ' '.join(old) or 'none'
    raise UserError(
      f'{path}: was made with other overrides ({shown}); give --results=DIR for these'
    )
