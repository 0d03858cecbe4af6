"""A table as Markdown, JSON and figures, from the record of runs; nothing is trained."""

import functools
import json
import pathlib
import shlex
from collections.abc import Sequence
from typing import Any

from elas_jax.common.errors import UserError
from elas_jax.common.places import write_text
from elas_jax.run.metrics import strict_json
from elas_jax.run.record import Record, read
from elas_jax.run.revisions import REVISIONS
from elas_jax.tables import asked as asked_for
from elas_jax.tables import figures
from elas_jax.tables.asked import alone
from elas_jax.tables.entries import Entry, of_line, of_searches
from elas_jax.tables.plan import At, Plan
from elas_jax.tables.table import MARKS, Metric, Published, Rates, Table

SCALES = ('smoke', 'proxy', 'paper')
# Fields on which it depends what a run is trained on.
DATA = ('source', 'tokenizer', 'protocol', 'sequence_length')


class Section:
  """A table at a scale, as it is shown: cells are text."""

  def __init__(self, plan: Plan, name: str):
    self.plan, self.name, self.table, self.scale = plan, name, plan.table, plan.scale_name
    self.entries, self.tried = [of_line(line) for line in plan.lines], of_searches(plan)
    of_rows = [line.config for line in plan.lines if line.config]
    # Before the rates are known there are the runs of their searches.
    self.configs = of_rows or [run.config for run in plan.runs.values()]
    self.done = sum(run.recorded is not None for run in plan.runs.values()), len(plan.runs)
    self.label = plan.scale.label.format(shape=self.table.family.shape(self.configs))
    words = [f'{shlex.quote(name)} --scale={self.scale}', *map(shlex.quote, plan.overrides)]
    words += [f'--seeds={plan.seeds}'] if plan.seeds != plan.scale.seeds else []
    self.command = f'python -m experiments.run {" ".join(words)}'

  @functools.cached_property
  def metrics(self) -> list[Metric]:
    """Not those of activations that no row has a value of."""
    known = {name for x in self.entries for name in x.mean}
    metrics = self.table.metrics or self.table.family.metrics
    return [m for m in metrics if not m[0].startswith('activations/') or m[0] in known]

  @functools.cached_property
  def rates(self) -> dict[str, Rates]:
    """How rates were looked for, by the sizes at which they were."""
    return {x.size: self.plan.scale.rates.at(x.size) for x in self.tried}

  @property
  def made(self) -> str:
    """Where the runs were made."""
    runs = [r.recorded for x in (*self.entries, *self.tried) for r in x.runs if r.recorded]
    either = lambda values: ', '.join(sorted({*values} - {''})) or '-'
    # That of a run that was continued is several.
    commits = either(x for run in runs for x in run.short_commit.split(', '))
    jax = either(f'jax {run.versions["jax"]}' for run in runs if 'jax' in run.versions)
    where = f'{either(run.device for run in runs)}{"" if jax == "-" else f", {jax}"}'
    return f'commit {commits}, on {where}'

  @property
  def cost(self) -> str:
    """How long its runs took, also those that it shares; '' if none was timed."""
    runs = [x.recorded for x in self.plan.runs.values() if x.recorded]
    timed = [x.seconds for x in runs if x.seconds is not None]
    if not timed:
      return ''
    of = f'{len(timed)} of its' if len(timed) < len(runs) else 'Its'
    hours = f'{sum(timed) / 3600:.2f} hours'
    return f' {of} {len(runs)} runs, searches included, took {hours}, one after the other.'

  def grid(self, of: Sequence[Entry]) -> list[list[str]]:
    """The header, and a row of cells for each entry: of the table, or of its searches."""
    metrics, own = self.metrics, of is self.entries
    if not own:
      chosen_by = dict.fromkeys(rates.metric for rates in self.rates.values())
      metrics = [*(x for x in chosen_by if x not in metrics), *metrics]
    more = [self._cells(x) for x in of]
    extra = list(dict.fromkeys(name for cells in more for name in cells))
    sizes = len({x.size for x in of}) > 1
    published = own and any(x.row.published for x in of)
    header = ['row', *(['size'] if sizes else [])]
    header += [self.table.family.published] if published else []
    header += [name for _, name, _ in metrics] + extra
    header += ['parameters', 'parameters + optimiser', 'learning rate', 'non-finite loss']
    rows = [header]
    for x, cells in zip(of, more):
      row = [x.label, *([x.size] if sizes else [])]
      row += [', '.join(self._published(x)) or '-'] if published else []
      row += [x.shown(metric) for metric in metrics]
      row += [cells.get(name, '-') for name in extra] + _memory(x)
      rows.append([*row, _rate(x), x.non_finite])
    return rows

  def _cells(self, entry: Entry) -> dict[str, str]:
    return self.table.cells(entry.runs[0].config, entry) if entry.runs else {}

  def published(self, entry: Entry) -> list[tuple[str, Published]]:
    """(Size, value): of this size or, at a smaller scale, of all."""
    sizes = [entry.size] if self.scale == 'paper' else entry.row.published
    return [(size, x) for size in sizes for x in entry.row.published.get(size, ())]

  def _published(self, entry: Entry) -> list[str]:
    size = lambda name: '' if self.scale == 'paper' else f'{name} '
    return [f'{size(name)}{x} [{x.mark}]' for name, x in self.published(entry)]

  @functools.cached_property
  def first(self) -> list[str]:
    """What is said above the table."""
    return self.table.first(self.entries) if self.scale == 'proxy' else []

  @functools.cached_property
  def text(self) -> list[str]:
    """What is said below the table."""
    table, plan = self.table, self.plan
    found = [
      *_before(self.entries),
      *_other_rows(self.entries),
      *table.conclude(self.entries),
      *table.notes,
    ]
    found += [note for size in plan.scale.sizes for note in table.notes_at(At(plan, size))]
    if self.scale == 'proxy':
      found.append(table.family.recipe(self.configs))
    if self.tried:
      searches = [x.search for x in plan.lines if x.search and x.search.at_the_edge]
      where = lambda x: f' on {x.size}' if len(self.rates) > 1 else ''
      edges = dict.fromkeys(f'{x.row.label}{where(x)} ({x.likely:g})' for x in searches)
      found.append(
        'Learning rates: chosen by the search below, not the published ones; at the edge '
        f'of its grid, so that a better one may lie beyond: {", ".join(edges) or "none"}.'
      )
    if any(len(x.runs) > 1 for x in self.entries):
      found.append(
        '± is the sample standard deviation over seeds. No difference is shown where zero '
        'lies in the 95 % t-interval of the paired differences.'
      )
    memory = 'Memory is what stays from step to step, from exact shapes; no activations.'
    return [*found, table.family.about + memory, *self._sources()]

  @property
  def said_of_searches(self) -> list[str]:
    """What is said below their table."""
    return _before(self.tried)

  def _sources(self) -> list[str]:
    sources = {}
    for x in self.entries:
      for _, value in self.published(x):
        sources.setdefault((value.source, value.mark), {})[x.label] = None
    used = {mark for _, mark in sources}
    lines = [f'[{mark}]: {text}.' for mark, text in MARKS.items() if mark in used]
    lines += [
      f'Published: {source} [{mark}] for {", ".join(labels)}.'
      for (source, mark), labels in sources.items()
    ]
    given = ' '.join(self.plan.overrides)
    return lines + ([f'Overrides of every run: `{given}`.'] if given else [])

  def markdown(self) -> str:
    done, known = self.done
    lines = [f'## {self.scale.capitalize()}', '', f'**{self.label}.**', '']
    lines += [line for said in self.first for line in (f'**{said}**', '')]
    if done < known:
      lines += [f'**Incomplete: {done} of {known} runs are done.**', '']
    lines += [*_markdown(self.grid(self.entries)), '', *(f'- {x}' for x in self.text)]
    lines += ['', f'Made by `{self.command}`; runs at {self.made}.{self.cost}', '']
    if self.tried:
      about = list(dict.fromkeys(x.about for x in self.rates.values()))
      if len(about) > 1:
        about = [f'{size}: {x.about}' for size, x in self.rates.items()]
      lines += [f'### Learning rates ({self.scale})', '', ' '.join(about), '']
      lines += [*_markdown(self.grid(self.tried)), '']
      lines += [f'- {x}' for x in self.said_of_searches]
    return '\n'.join(lines).rstrip() + '\n'

  def tree(self) -> dict[str, Any]:
    """Which runs the rows have, for elas_jax.compare, and what it says first."""
    said = self.first + self.table.conclude(self.entries)
    return {
      'label': self.label,
      'done': self.done,
      'says': next((x for x in said if 'not known' not in x), next(iter(said), '')),
      'metrics': self.metrics,
      'rows': [_tree(x) for x in self.entries],
    }


def _tree(entry: Entry) -> dict[str, Any]:
  found = {name: getattr(entry, name) for name in ('label', 'size', 'rate', 'at_the_edge')}
  before = {r.seed: [r.before.fingerprint, r.lacks] for r in entry.runs if r.before}
  recorded = {r.seed: r.recorded.fingerprint for r in entry.runs if r.recorded}
  missing = [run.seed for run in entry.of('not run')]
  return found | {'runs': recorded, 'missing': missing, 'before': before}


def _before(entries: Sequence[Entry]) -> list[str]:
  """Which rows have runs of before a revision, and before what."""
  found = {}
  for x in entries:
    for name in {name: None for run in x.runs for name in run.lacks}:
      found.setdefault(name, []).append(x.label)
  return [
    f'Not shown until they are made again: runs of {", ".join(labels)}, made with '
    f'{REVISIONS[name].before} (revision {name}). They are in runs.jsonl.'
    for name, labels in found.items()
  ]


def _other_rows(entries: Sequence[Entry]) -> list[str]:
  """Which rows of a table were trained on other data, though their configs say the same."""
  found = {}
  for label, run in ((x.label, run) for x in entries for run in x.runs):
    said = repr([getattr(run.config.data, name, None) for name in DATA])
    if run.recorded and run.recorded.data:
      found.setdefault(said, {}).setdefault(run.recorded.data, {})[label] = None
  return [
    'NOT comparable: trained on different data, '
    + '; '.join(f'{data} ({", ".join(labels)})' for data, labels in of.items())
    + '.'
    for of in found.values()
    if len(of) > 1
  ]


def _memory(entry: Entry) -> list[str]:
  if not (size := entry.size_of):
    return ['-', '-']
  kept = sum(size[f'{name}_bytes'] for name in ('parameter', 'buffer', 'optimizer'))
  return [f'{size["parameters"]:,}', f'{kept / 1e6:,.2f} MB']


def _rate(entry: Entry) -> str:
  if len(entry.of('not run')) == len(entry.runs):
    return '-'
  return f'{entry.rate:g}' + (' (at the edge)' if entry.at_the_edge else '')


def _markdown(rows: list[list[str]]) -> list[str]:
  lines = ['| ' + ' | '.join(row) + ' |' for row in rows]
  return [lines[0], '|' + '---|' * len(rows[0]), *lines[1:]]


def sections(
  name: str, table: Table, results: pathlib.Path, asked: Plan | None = None
) -> list[Section]:
  """Of a table at every scale that has been run, as it was asked for there, or is now."""
  record, found = Record(read(results / 'runs.jsonl')), []
  for scale in (scale for scale in SCALES if scale in table.scales):
    now = asked is not None and asked.scale_name == scale
    was = asked_for.read(results, pathlib.Path(name).stem, scale)
    plan = asked.by(record) if now else Plan(table, scale, record, *was)
    if now or any(run.recorded or run.before for run in plan.runs.values()):
      found.append(Section(plan, name))
  return found


def render(
  name: str,
  table: Table,
  results: pathlib.Path,
  asked: Plan | None = None,
  plot: bool = True,
) -> list[Section]:
  """Writes RESULTS/tables/NAME.md, .json and a PNG for every scale.

  `asked` says how one of the scales is asked for now; the others are as they were.
  """
  folder, stem = results / 'tables', pathlib.Path(name).stem  # of mine.py
  with alone(folder):
    found = sections(name, table, results, asked)
    if not found:  # a page of before stays: there may be no record here
      return found
    text = f'# {table.title}\n\n' + '\n'.join(x.markdown() for x in found)
    _write(folder / f'{stem}.md', text)
    tree = {'title': table.title, 'scales': {x.scale: x.tree() for x in found}}
    _write(folder / f'{stem}.json', strict_json(tree, indent=1) + '\n')
    for section in found if plot else ():
      figures.plot(section, folder / f'{stem}_{section.scale}.png')
  return found


def _write(path: pathlib.Path, text: str) -> None:
  try:
    if not path.exists() or path.read_text() != text:
      write_text(path, text)
  except OSError as error:
    raise UserError(f'{path}: cannot be written: {error.strerror}') from error


def read_page(path: pathlib.Path) -> dict[str, Any]:
  """What `render` has written to tables/NAME.json.

  Raises:
    UserError: it is something else.
  """
  try:
    tree = json.loads(path.read_text())
    if isinstance(tree['title'], str) and isinstance(tree['scales'], dict):
      return tree
  except (ValueError, KeyError, TypeError):
    pass
  raise UserError(f'{path}: is no table; delete it, it is rendered anew') from None


def write_list(results: pathlib.Path, about: Sequence[str] = ()) -> None:
  """RESULTS.md: all tables, how far they are and the first thing that each says.

  `about`: paragraphs above them.
  """
  rows = [['table', 'scale', 'runs', 'says first']]
  for path in sorted((results / 'tables').glob('*.json')):
    tree = read_page(path)
    for scale, x in tree['scales'].items():
      link = f'[{path.stem}](tables/{path.stem}.md): {tree["title"]}'
      rows.append([link, scale, f'{x["done"][0]} of {x["done"][1]}', x['says'] or '-'])
  made = 'Rendered from runs.jsonl by `python -m experiments.render`.'
  above = [line for said in (made, *about) for line in (said, '')]
  text = '\n'.join(['# Results', '', *above, *_markdown(rows)])
  _write(results / 'RESULTS.md', text + '\n')
