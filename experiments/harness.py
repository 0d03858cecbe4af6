"""What the table scripts share: their command line, the loop over runs, result files.

A script describes its table as an `Experiment` and calls `main`. The runs of a call are
trained one after the other in this process; finished ones are skipped, a stopped one is
continued, and the result files are written anew after each.
"""

import dataclasses
import json
import os
import pathlib
import platform
import re
import shlex
import sys
import time
from collections.abc import Callable
from typing import Any

import jax

from elas_jax.cli import Parser
from elas_jax.errors import UserError
from elas_jax.host_memory import keep_freed_memory
from elas_jax.metrics import describe_run
from elas_jax.workdir import write_text
from experiments import report
from experiments.published import SIZES
from experiments.runs import SCALES, Row, Run, Setting, execute, footprint, outcome


def nothing(entries: list[dict[str, Any]]) -> tuple[Any, list[str]]:
  return {}, []


@dataclasses.dataclass(frozen=True)
class Experiment:
  """A table. `conclude` takes its entries, returns what follows from them: JSON, lines."""

  name: str
  title: str
  rows: Callable[[Setting, str], list[Row]]  # of a size
  paper_sizes: tuple[str, ...] = SIZES
  metrics: tuple[tuple[str, str, int], ...] = report.METRICS
  conclude: Callable[[list[dict[str, Any]]], tuple[Any, list[str]]] = nothing
  notes: tuple[str, ...] = ()
  first_seed: int = 0
  seeds: int | None = None  # None: those of the scale

  def sizes(self, scale: str) -> tuple[str, ...]:
    return self.paper_sizes if scale == 'paper' else SCALES[scale].sizes


@dataclasses.dataclass
class Line:
  """A row of the table at one size: what is to be run, and how that went."""

  row: Row
  size: str
  runs: list[Run]
  outcomes: list[dict[str, Any]]


def main(experiment: Experiment, arguments: list[str] | None = None) -> None:
  options, overrides = _parser(experiment).parse_known_args(arguments)
  if options.scale not in SCALES:
    raise UserError(f'--scale={options.scale}: must be one of {", ".join(SCALES)}')
  seeds = options.seeds or experiment.seeds or SCALES[options.scale].seeds
  if options.seeds is not None and options.seeds < 1:
    raise UserError(f'--seeds={options.seeds}: must be at least 1')
  runs = pathlib.Path(options.runs)
  # What a smoke run writes looks like a result and is none.
  fallback = runs / 'smoke/results' if options.scale == 'smoke' else 'experiments/results'
  results = pathlib.Path(options.results or fallback)
  rates = results / 'learning_rates' / f'{options.scale}.json'
  setting = Setting(options.scale, tuple(overrides), runs, rates)
  if jax.default_backend() == 'cpu':
    keep_freed_memory()
  all_seeds = range(experiment.first_seed, experiment.first_seed + seeds)
  lines = _plan(experiment, setting, all_seeds)
  chosen = _chosen(lines, options.only)
  folder = results / experiment.name
  words = sys.argv[1:] if arguments is None else arguments
  command = f'python -m experiments.{experiment.name} {shlex.join(words)}'
  write = lambda: _write(experiment, setting, lines, folder, command)
  _check_overrides(folder / f'{options.scale}.json', overrides)
  write()
  _run_all(chosen, write)
  print(f'\n{(folder / options.scale).with_suffix(".md").read_text()}')
  print(f'written to {folder}/{options.scale}.json, .md and .png')


def _parser(experiment: Experiment) -> Parser:
  parser = Parser(
    prog=f'python -m experiments.{experiment.name}',
    description=experiment.title,
    epilog='Any field of the config can be overridden for all runs: '
    '--config.train.steps=100. Finished runs are skipped; the same command continues.',
  )
  add = parser.add_argument
  add('--scale', required=True, help=f'one of {", ".join(SCALES)}')
  add('--seeds', type=int, help="runs of a row; default: the scale's")
  add('--only', help='run only these rows: labels, methods or sizes, with commas')
  add('--runs', default='runs/experiments', help='folder of the runs')
  add('--results', help='folder of the results; default: experiments/results')
  return parser


def _plan(experiment: Experiment, setting: Setting, seeds: range) -> list[Line]:
  lines = []
  for size in experiment.sizes(setting.scale):
    for row in experiment.rows(setting, size):
      runs = [] if row.problem else [setting.run(row, size, seed) for seed in seeds]
      lines.append(Line(row, size, runs, [outcome(run) for run in runs]))
  return lines


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


def _run_all(lines: list[Line], write: Callable[[], None]) -> None:
  """Every run that is not done yet, with progress and a new result file after each."""
  todo = [
    (line, i)
    for line in lines
    for i, found in enumerate(line.outcomes)
    if found['status'] == 'not run'
  ]
  total = sum(len(line.runs) for line in lines)
  print(f'{total} runs, {total - len(todo)} of them done already')
  start = time.monotonic()
  for number, (line, i) in enumerate(todo):
    run, elapsed = line.runs[i], time.monotonic() - start
    left = ''
    if number:
      left = f', about {elapsed / number * (len(todo) - number) / 60:.0f} min left'
    print(
      f'--- run {number + 1} of {len(todo)}: {line.row.label}, {line.size}, seed '
      f'{run.seed}; {elapsed / 60:.1f} min elapsed{left}',
      flush=True,
    )
    if outcome(run)['status'] == 'not run':  # two rows of a table may be one run
      execute(run)
    line.outcomes[i] = outcome(run)
    write()


def _entry(line: Line) -> dict[str, Any]:
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
        'value': f'{cell.value:.2f}'.replace('nan', 'NaN'),  # JSON has no NaN
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
    entry |= footprint(dataclasses.replace(first.config, seed=0))
    entry['learning_rate'] = first.config.optimizer.learning_rate
  return entry


def _write(
  experiment: Experiment,
  setting: Setting,
  lines: list[Line],
  folder: pathlib.Path,
  command: str,
) -> None:
  entries = [_entry(line) for line in lines]
  summary, text = experiment.conclude(entries)
  done = all(r['status'] != 'not run' for entry in entries for r in entry['runs'])
  result = {
    'title': experiment.title,
    'scale': setting.scale,
    'label': SCALES[setting.scale].label,
    'complete': done,
    'command': command,
    'overrides': list(setting.overrides),
    'run': describe_run(),
    'machine': machine(),
    'metrics': experiment.metrics,
    'summary': summary,
    'text': text + list(experiment.notes),
    'rows': entries,
  }
  folder.mkdir(parents=True, exist_ok=True)
  path = folder / f'{setting.scale}.json'
  write_text(path, json.dumps(result, indent=2, allow_nan=False) + '\n')
  write_text(path.with_suffix('.md'), report.markdown(result))
  report.plot(result, path.with_suffix('.png'))


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


def machine() -> str:
  """The accelerator, or how many cores of what."""
  devices = jax.devices()
  if devices[0].platform != 'cpu':
    return f'{len(devices)} x {devices[0].device_kind}'
  cpuinfo = pathlib.Path('/proc/cpuinfo')
  text = cpuinfo.read_text() if cpuinfo.exists() else ''
  found = re.search(r'model name\s*:\s*(.+)', text)
  return f'{os.cpu_count()} cores of {found[1] if found else platform.machine()}'
