"""The first page: all tables and measurements, and the systems that a table supports."""

import dataclasses
import pathlib
from collections.abc import Sequence

from elas_jax.config.schema import kinds_in
from elas_jax.systems.kinds import Kinds, name_of
from elas_jax.systems.measures import MEASURES
from elas_jax.tables.render import Section
from elas_jax.tables.site.benchmark_page import Benchmark
from elas_jax.tables.site.html import (
  Html,
  badge,
  inline,
  join,
  link,
  listed,
  page,
  paper,
  table,
  tag,
)
from elas_jax.tables.site.table_page import state
from elas_jax.tables.table import Table

System = tuple[str, str]  # section and kind


@dataclasses.dataclass(frozen=True)
class Catalogue:
  """The kinds of each section; and of every one (section, kind, papers, line)."""

  kinds: dict[str, Kinds]
  rows: Sequence[tuple[str, str, str, str]]


ABOUT = (
  'Everything that this code has measured: tables that reproduce those of papers, times '
  'and memory of its parts, and the systems that these tables support. A number marked ',
  ' comes from a small model and minutes of training: compare it with its neighbours, '
  'never with a published value.',
)


def index_page(
  tables: dict[str, Table],
  sections: dict[str, list[Section]],
  measured: Sequence[Benchmark],
  no_page: Sequence[pathlib.Path],
  catalogue: Catalogue,
) -> str:
  supported, known = support(catalogue.kinds, sections), catalogue.rows
  runs = {key for of in sections.values() for x in of for key in _done(x)}
  ticks = sum((section, name) in supported for section, name, *_ in known)
  counts = (
    f'{len(tables)} tables, {len(runs):,} of their runs done; {len(measured)} pages of '
    f'measurements; {len(known)} systems, {ticks} of them in a table that has been run.'
  )
  return page(
    'Results',
    tag('p', ABOUT[0], badge('proxy'), ABOUT[1], class_='lead'),
    tag('p', counts, class_='muted'),
    _tables(tables, sections),
    _measurements(measured, no_page),
    _systems(known, supported),
  )


def _done(section: Section) -> list[str]:
  return [run.key for run in section.plan.runs.values() if run.recorded]


def support(
  of_section: dict[str, Kinds], sections: dict[str, list[Section]]
) -> dict[System, list[str]]:
  """System -> names of tables that have a row with it of which a run is recorded."""
  of = {id(kinds): section for section, kinds in of_section.items()}
  found = {}
  for table_name, its in sections.items():
    entries = [x for section in its for x in section.entries]
    for runs in ([run for run in x.runs if run.recorded] for x in entries):
      used = {}
      if runs:  # seeds differ in nothing else
        for _, kinds, value in kinds_in(runs[0].config):
          used[of.get(id(kinds)), name_of(kinds, value)] = None
      names = {value.partition('/')[0] for run in runs for value in run.values}
      # Measures are no part of what a run is; what they found is in its values.
      used |= {('eval.measures', name): None for name in MEASURES if name in names}
      for system in used:
        of_system = found.setdefault(system, [])
        if table_name not in of_system:
          of_system.append(table_name)
  return found


def _tables(tables: dict[str, Table], sections: dict[str, list[Section]]) -> Html:
  header = ['table', 'state', 'runs done', 'first conclusion', 'device']
  rows = []
  for name, of in tables.items():
    title = _title(name, of.title, name)
    for section in sections[name]:
      rows.append([title, *_scale(name, section)])
    if not sections[name]:
      rows.append([title, tag('td', badge('not run yet')), '-', '-', '-'])
  caption = 'Each table, at each scale that has been run'
  parts = [tag('h2', 'Tables'), table(caption, header, rows)]
  return tag('section', parts, id='tables')


def _title(page: str, title: str, name: str) -> Html:
  where = link(f'{page}.html', title)
  return tag('div', where, tag('br'), tag('code', name), class_='title')


def _scale(name: str, section: Section) -> list[object]:
  done, known = section.done
  says = next(iter(section.table.conclude(section.entries)), '-')
  bar = tag('progress', value=done, max=known, aria_label='runs done')
  runs = [run.recorded for x in section.entries for run in x.runs if run.recorded]
  count = tag('td', f'{done} of {known}', bar, class_='n')
  words = tag('div', badge(section.scale), ' ', inline(says), class_='clamp', title=says)
  said = tag('td', words, class_='wide') if says != '-' else says
  device = ', '.join(sorted({run.device for run in runs} - {''}))
  where = link(f'{name}.html#{section.scale}', state(section))
  return [tag('td', where), count, said, device or '-']


def _measurements(measured: Sequence[Benchmark], no_page: Sequence[pathlib.Path]) -> Html:
  header = ['measurement', 'state', 'device', 'parts']
  rows = [
    [
      _title(x.name, x.title, x.path.as_posix()),
      tag('td', x.state),
      tag('td', x.device),
      tag('td', x.says),
    ]
    for x in measured
  ]
  parts = [tag('h2', 'Time and memory'), table('Made by benchmarks/', header, rows)]
  if no_page:
    parts.append(tag('p', 'Stored as JSON alone:'))
    parts.append(listed([f'`{path.as_posix()}`' for path in no_page]))
  return tag('section', parts, id='measurements')


def _systems(
  known: Sequence[tuple[str, str, str, str]], supported: dict[System, list[str]]
) -> Html:
  header = ['system', 'section', 'paper', 'what', 'in a table that has been run']
  rows = []
  for section, name, papers, line in known:
    found = supported.get((section, name), [])
    links = [paper(x) for x in papers.split(', ') if x]
    in_tables = [link(f'{x}.html', x) for x in found]
    tick = join(badge('✓', 'yes'), ' ', Html(', '.join(in_tables)))
    rows.append(
      [
        tag('code', name),
        tag('td', tag('code', section)),
        tag('td', Html(', '.join(links)), class_='wide') if links else '-',
        tag('td', inline(line), class_='wide'),
        tag('td', tick, data_value=f'{len(found)} tables') if found else '-',
      ]
    )
  about = 'A tick: a recorded run that a table shows has it, by default or by choice.'
  parts = [tag('h2', 'Systems'), table(about, header, rows)]
  return tag('section', parts, id='systems')
