"""Makes the runs of a table, and renders it from the record.

  python -m experiments.run --list
  python -m experiments.run table1_perplexity --scale=smoke
  python -m experiments.run table1_perplexity --scale=proxy --workers=2 [--only=elas,loro]

First the runs of the searches for learning rates, then the rows. What is recorded in
experiments/results/runs.jsonl is not done again, whichever table it was done for; what was
stopped is continued. Several calls may work on the same table, or on others, at the same
time: a run belongs to whoever holds its lock. What a smoke run makes stays under runs/.
"""

import dataclasses
import pathlib
import shlex
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax

from elas_jax.common.errors import UserError
from elas_jax.common.places import new_folder
from elas_jax.config.cli import Parser, integer, run_command
from elas_jax.config.config import Config
from elas_jax.convert import main as convert
from elas_jax.run.checkpoint import steps_in
from elas_jax.run.diverged import Diverged
from elas_jax.run.ended import recorded
from elas_jax.run.host_memory import keep_freed_memory, share_one_arena
from elas_jax.run.record import Record, append, read
from elas_jax.run.workers import claimed, end_with_parent, run_workers, waited_for
from elas_jax.tables import asked
from elas_jax.tables.plan import Line, Plan
from elas_jax.tables.planned_run import Run
from elas_jax.tables.render import Section, read_page, render, write_list
from elas_jax.train import train
from experiments.papers import (
  RESULTS,
  about,
  failures_of,
  name_on_page,
  names,
  results_of,
  table_of,
)

RUNS = pathlib.Path('runs/experiments')
WAIT = 1.0  # seconds between two looks at what other processes do


class Work:
  """What one call works on; it is looked at anew after every run."""

  def __init__(self, options: Any, overrides: Sequence[str]):
    scale, self.only, self.given = options.scale, options.only, options.name
    self.name, self.table = name_on_page(options.name), table_of(options.name)
    if scale not in self.table.scales:
      raise UserError(f'--scale={scale}: must be one of {", ".join(self.table.scales)}')
    self.runs = options.runs / scale
    # What a smoke run writes looks like a result and is none.
    usual = self.runs / 'results' if scale == 'smoke' else results_of(options.name)
    self.results = options.results or usual
    self.path, self.tables = self.results / 'runs.jsonl', self.results / 'tables'
    shown, was = asked.overrides(overrides), asked.read(self.results, self.stem, scale)
    usual, given = self.table.scales[scale].seeds, max(options.seeds or 0, was.seeds or 0)
    self.asked = asked.Asked(shown, given if given > usual else None)
    # Flags of this machine reach the runs, and no page; nor do fewer seeds, which a page
    # is incomplete with.
    seeds = options.seeds or self.asked.seeds
    self._made = Plan(self.table, scale, Record(()), overrides, seeds)
    self.shown = Plan(self.table, scale, Record(()), *self.asked)

  @property
  def stem(self) -> str:
    return pathlib.Path(self.name).stem

  def _has_page(self, scale: str) -> bool:
    path = self.tables / f'{self.stem}.json'
    return path.exists() and scale in read_page(path)['scales']

  def plan(self) -> Plan:
    return self._made.by(Record(read(self.path)))

  def todo(self, plan: Plan) -> list[Run]:
    return plan.todo(chosen(plan.lines, self.only))

  def check(self) -> None:
    """Refuses a bad command line before anything is written."""
    plan = self.plan()
    with failures_of(self.given):
      self.todo(plan)
      plan.check()
      Section(self.shown.by(plan.record), self.name).markdown()
    scale, was = plan.scale_name, asked.read(self.results, self.stem, plan.scale_name)
    if was.overrides != self.asked.overrides and self._has_page(scale):
      raise UserError(
        f'{self.results}: {self.stem} was made there with other overrides '
        f'({" ".join(was.overrides) or "none"}); give --results=DIR for these'
      )

  def work(self) -> None:
    """Makes every run that is not recorded, until there are none."""
    asked.write(self.results, self.stem, self.shown.scale_name, self.asked)
    start, number, waiting = time.monotonic(), 0, False
    while todo := self.todo(plan := self.plan()):
      for run in (x for x in todo if x.ready):
        with claimed(self.runs / '.locks', run.key) as mine:
          # Another process may have recorded it since the plan was made.
          if mine and run.key in {x.key for x in self.todo(self.plan())}:
            minutes = (time.monotonic() - start) / 60
            left = f', about {minutes / number * len(todo):.0f} left' if number else ''
            print(
              f'--- {run.label}, {run.size}, seed {run.seed}: {len(todo)} of '
              f'{len(plan.runs)} runs to do; {minutes:.1f} minutes passed{left}',
              flush=True,
            )
            self.execute(run)
            with failures_of(self.given):
              render(self.name, self.table, self.results, self.shown, plot=False)
            number, waiting = number + 1, False
            break
      else:
        if not waiting:
          print(f'waiting for {len(todo)} runs of other processes', flush=True)
        waiting = True
        time.sleep(WAIT)

  def execute(self, run: Run) -> None:
    """Trains, or continues to, and adds the run to the record.

    Raises UserError if a signal stopped it.
    """
    config = self.config_of(run)
    workdir, start, step = run.workdir(self.runs), time.monotonic(), None
    fresh = not (workdir / 'metrics.jsonl').exists()
    try:
      train(config, workdir)
    except Diverged as error:
      step = error.step
      print(f'{error}; recorded, not tried again')
    finally:
      jax.clear_caches()  # the next run has other shapes; programs would pile up
    seconds = round(time.monotonic() - start, 1) if fresh else None
    found = recorded(workdir, run.config, step, seconds)
    # What another table has looked for in the same run stays.
    was = Record(read(self.path)).find(run.config)
    values = (was.values if was else {}) | found.values
    if run.look and step is None:
      with failures_of(self.given):
        looked = run.look.of(workdir)
      values |= {f'{run.look.name}/{name}': float(x) for name, x in looked.items()}
      jax.clear_caches()
    if was and found.seconds is None:
      found = dataclasses.replace(found, seconds=was.seconds)
    append(self.path, dataclasses.replace(found, values=values))

  def config_of(self, run: Run) -> Config:
    """What it is trained by here: its start and the files made for it are there."""
    start = self.start_of(run)
    if run.made is None:
      return run.config_here(start, None)
    folder = run.made_in(self.runs)
    with waited_for(self.runs / '.locks', f'made-{folder.name}'):
      if not folder.exists():
        with new_folder('--runs', folder) as fresh, failures_of(self.given):
          fresh.mkdir()
          run.made.of(pathlib.Path(start) if start else None, fresh, run.seed)
        jax.clear_caches()
    return run.config_here(start, folder)

  def start_of(self, run: Run) -> str:
    """The workdir that a run starts from, made if it is not there; '' if there is none."""
    if run.after is None:
      return ''
    before, folder = run.after, run.start(self.runs)
    workdir = before.workdir(self.runs)
    with waited_for(self.runs / '.locks', before.key):
      if before.config.train.steps not in steps_in(workdir / 'checkpoints'):
        print(f'{before.label}, seed {before.seed}: trained, to start from', flush=True)
        train(self.config_of(before), workdir)
        jax.clear_caches()
      if not folder.exists():
        where = [f'--workdir={workdir}', f'--output={folder}']
        convert([*where, *shlex.split(f'--converter={run.converter}')])
        jax.clear_caches()
    return str(folder)

  def show(self) -> None:
    """Renders and prints the table; also renders the others here, which may share runs."""
    plan = self.plan()
    self.tables.mkdir(parents=True, exist_ok=True)
    figure = self.tables / f'{self.stem}_{plan.scale_name}.png'
    with failures_of(self.given):
      self.table.draw(plan.lines, self.runs, figure)
      render(self.name, self.table, self.results, self.shown)
    for name in names():
      if name != self.name and (self.tables / f'{name}.json').exists():
        render(name, table_of(name), self.results)
    write_list(self.results, about(self.results))
    path = self.tables / f'{self.stem}.md'
    print(f'\n{path.read_text()}\nrecord: {self.path}\ntable: {path}, and figures')


def chosen(lines: list[Line], only: str | None) -> list[Line]:
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


def parser() -> Parser:
  parser = Parser(
    prog='python -m experiments.run',
    description='Make the runs of a table, and render it.',
    epilog='Any field of the config can be overridden for all runs: '
    '--config.train.steps=100. What is recorded is not done again; the same command '
    'continues.',
  )
  add, count = parser.add_argument, integer(1, 10_000)
  add('name', nargs='?', metavar='NAME', help='of a table; --list shows them')
  add('--list', action='store_true', help='name the tables and their scales')
  add('--scale', help='smoke, proxy or paper: some tables have no paper scale')
  add(
    '--seeds',
    type=count,
    help="of a row to make; default: the scale's, or as many as before",
  )
  add('--only', help='run only these rows: labels, methods or sizes, with commas')
  add('--workers', type=count, default=1, help='processes, each on a CPU core; default: 1')
  parser.add_place('--runs', default=str(RUNS), help=f'folder of the runs; default: {RUNS}')
  default = f'{RESULTS}; of a FILE.py results/ beside it'
  parser.add_place('--results', help=f'folder of the results; default: {default}')
  return parser


def main(arguments: list[str] | None = None) -> None:
  arguments = sys.argv[1:] if arguments is None else arguments
  options, overrides = parser().parse_known_args(arguments)
  if options.list:
    for name in names():
      table = table_of(name)
      print(f'{name:20s} {", ".join(table.scales):20s} {table.title}')
    return
  if options.name is None:
    raise UserError(f'NAME: missing; must be one of {", ".join(names())}')
  if options.scale is None:
    raise UserError('--scale: missing; must be smoke, proxy or paper')
  share_one_arena()
  work = Work(options, overrides)
  work.check()
  worker = end_with_parent()
  if options.workers > 1 and not worker:
    if jax.default_backend() != 'cpu':
      raise UserError(f'--workers={options.workers}: must be 1 on an accelerator')
    run_workers(options.workers, [sys.executable, '-m', 'experiments.run', *arguments])
  else:
    if jax.default_backend() == 'cpu':
      keep_freed_memory()
    # Small programs too: the runs of a network take less time than compiling them.
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
    work.work()
  if not worker:
    work.show()


if __name__ == '__main__':
  run_command(main)
