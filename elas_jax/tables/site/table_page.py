"""The page of a table: each scale that has been run, with all that is known of its runs."""

import dataclasses
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

from elas_jax.run.ended import CURVES
from elas_jax.tables.entries import Entry
from elas_jax.tables.planned_run import Run
from elas_jax.tables.render import Section
from elas_jax.tables.site import svg
from elas_jax.tables.site.html import (
  Html,
  badge,
  cell,
  command,
  folded,
  inline,
  join,
  label,
  link,
  listed,
  marked,
  page,
  scrolled,
  table,
  tag,
)
from elas_jax.tables.table import Metric, Published, Table

TEXTS = ('size', 'non-finite loss')  # columns that hold no numbers


@dataclasses.dataclass(frozen=True)
class Figures:
  """What is drawn besides: files beside the page, and paths of what is too large for it."""

  shown: Sequence[str] = ()
  left_out: Sequence[pathlib.Path] = ()


def table_page(
  name: str, of: Table, sections: Sequence[Section], figures: dict[str, Figures]
) -> str:
  """`figures` by scale."""
  lead = join('The table ', tag('code', name), ', at ')
  names = [join(link(f'#{x.scale}', x.scale), f' ({_runs(x)})') for x in sections]
  shown = {'smoke', *(x.scale for x in sections)}  # a smoke run is no result
  rest = [x for x in of.scales if x not in shown]
  unknown = f'; not run yet at {", ".join(rest)}' if rest else ''
  parts = [tag('p', lead, _listed(names) or 'no scale', f'{unknown}.', class_='lead')]
  if not sections:
    words = f'python -m experiments.run {name} --scale={rest[0]}'
    parts += [tag('p', 'Not run yet. This makes its runs:'), command(words)]
  parts += [_section(x, figures.get(x.scale, Figures())) for x in sections]
  return page(of.title, parts)


def _listed(parts: Sequence[Html]) -> Html:
  return Html(', '.join(parts))


def _runs(section: Section) -> str:
  return '{} of {} runs'.format(*section.done)


def state(section: Section) -> Html:
  """The scale, and whether a GPU was in it."""
  platforms = {run.recorded.platform for run in _recorded(section.entries)}
  gpu = badge('GPU') if any('gpu' in platform for platform in platforms) else None
  return join(badge(section.scale), ' ' if gpu else None, gpu)


def _recorded(entries: Iterable[Entry]) -> list[Run]:
  return [run for x in entries for run in x.runs if run.recorded]


def _section(section: Section, figures: Figures) -> Html:
  scale, (done, known) = section.scale, section.done
  kind = badge(scale)
  about = tag('strong', inline(f'{section.label}.'))
  parts = [tag('h2', scale.capitalize(), ' ', kind)]
  parts.append(tag('p', about, class_=f'label {scale}'))
  parts += [tag('p', tag('strong', inline(said)), class_='label') for said in section.first]
  if done < known:
    text = f'Incomplete: {done} of {known} runs are done.'
    parts.append(tag('p', text, class_='incomplete'))
  parts.append(grid(section, section.entries, join('Rows, mean ± spread ', kind)))
  parts += _charts(section, figures)
  parts += _conclusions(section)
  parts += _provenance(section)
  if section.tried:
    parts.append(_searches(section, kind))
  parts.append(folded('Runs of each row', _runs_of(section, kind)))
  return tag('section', parts, id=scale)


def grid(section: Section, of: Sequence[Entry], caption: Html) -> Html:
  """The cells of `Section.grid`, and a sketch of the loss of each row's first run."""
  header, *rows = section.grid(of)
  names = {name for _, name, _ in section.metrics}
  if section.tried:
    names.add(section.plan.scale.rates.metric[1])
  published = section.table.family.published
  numbers = [name not in (*TEXTS, published) for name in header]
  own = of is section.entries
  heads = [_head(name, name in names, name == published, section.scale) for name in header]
  at = header.index(published) if published in header else -1
  cells = [
    [_cell(text, numbers[n], n == at) if n else label(text) for n, text in enumerate(row)]
    + ([_curve(x)] if own else [])
    for row, x in zip(rows, of)
  ]
  return table(caption, heads + (['loss curve'] if own else []), cells)


def _head(name: str, measured: bool, published: bool, scale: str) -> Html:
  """Beside each number of a small scale it says so."""
  if measured and scale != 'paper':
    return join(name, ' ', badge(scale))
  if published and scale != 'paper':
    return join(name, tag('small', f'not comparable with a {scale} value'))
  return join(name)


def _cell(text: str, number: bool, published: bool) -> str:
  if text == '-':
    return text
  if text.endswith(' (at the edge)'):
    shown = text.removesuffix(' (at the edge)')
    return tag('td', shown, ' ', badge('(at the edge)', 'smoke'), class_='n')
  if published:
    return tag('td', marked(text), class_='wide')
  return cell(text) if number else tag('td', text)


def _curve(entry: Entry) -> Html:
  runs = [run.recorded for run in _recorded([entry])]
  found = ((name, run.curve[name]) for run in runs for name in CURVES if name in run.curve)
  return svg.spark(*next(found, ('', ())))


def _charts(section: Section, figures: Figures) -> list[Html]:
  parts, sizes = [tag('h3', 'Figures')], section.plan.scale.sizes
  drawn = [_chart(section, metric, x) for metric in _drawn(section) for x in sizes]
  parts.append(tag('div', drawn, class_='charts'))
  for name in figures.shown:
    image = tag('img', src=name, alt=name, loading='lazy')
    parts.append(tag('figure', image, tag('figcaption', name)))
  if figures.left_out:
    paths = _listed([tag('code', path.as_posix()) for path in figures.left_out])
    parts.append(tag('p', 'Too large for this page: ', paths, '.', class_='muted'))
  return parts


def _drawn(section: Section) -> list[Metric]:
  """The first that has a value; and that which published values are of, if comparable."""
  known = {name for x in section.entries for name in x.mean}
  first = next((m for m in section.metrics if m[0] in known), section.metrics[0])
  compared = [m for m in section.metrics if _published(section, m)]
  return list(dict.fromkeys([first, *compared]))


def _published(section: Section, metric: Metric) -> dict[str, list[Published]]:
  """Label and size -> values, on the paper's scale alone."""
  if section.scale != 'paper' or metric[0] != section.table.family.compared:
    return {}
  found = {(x.label, x.size): section.published(x) for x in section.entries}
  return {name: [p for _, p in values] for name, values in found.items() if values}


def _chart(section: Section, metric: Metric, size: str) -> Html | None:
  entries = [x for x in section.entries if x.size == size]
  if not entries:
    return None
  published = _published(section, metric)
  of = lambda x: published.get((x.label, x.size), ())
  known = {name for x in entries for name in x.mean}
  if metric[0] not in known:  # sets of another kind have another one
    metric = next((m for m in section.metrics if m[0] in known), metric)
  title = f'{metric[1]}, {size}' if size != section.scale else metric[1]
  chart = svg.rows(entries, metric, of, f'{title} of each row, with error bars')
  ticks = '; upright lines are published values' if any(map(of, entries)) else ''
  about = f': mean ± sample standard deviation{ticks}.'
  kind = [' ', badge(section.scale)]
  caption = tag('figcaption', tag('strong', title), kind, about)
  return tag('figure', caption, scrolled(chart, title))


def _conclusions(section: Section) -> list[Html]:
  found = section.table.conclude(section.entries)
  notes = [text for text in section.text if text not in found]
  parts = [tag('h3', 'Conclusions ', badge(section.scale)), listed(found)] if found else []
  return [*parts, tag('h3', 'Notes'), listed(notes)]


def _provenance(section: Section) -> list[Html]:
  runs = [run.recorded for run in _recorded([*section.entries, *section.tried])]
  commits = sorted({run.short_commit for run in runs if run.commit})
  versions = sorted({f'{k} {v}' for run in runs for k, v in run.versions.items()})
  either = lambda values: ', '.join(values) or 'not recorded'
  about = {
    'commit': either(commits),
    'device': either(sorted({run.device for run in runs if run.device})),
    'versions': either(versions),
    'data': either(sorted({run.data for run in runs if run.data})),
    'runs': f'{section.done[0]} done of {section.done[1]} known',
  }
  lines = [(tag('dt', name), tag('dd', value)) for name, value in about.items()]
  return [tag('h3', 'How it was made'), command(section.command), tag('dl', lines)]


def _searches(section: Section, kind: Html) -> Html:
  """Folded: it is long, and what follows from it stands in the rows."""
  parts = []
  for size, rates in section.rates.items():
    of_size = [x for x in section.plan.searches if x.size == size]
    where = f'{size}: ' if len(section.rates) > 1 else ''
    parts.append(tag('p', where + rates.about))
    if any(rates.metric[0] in x.values for one in of_size for x in one.grid.values()):
      chart = svg.rates(of_size, rates.metric, where + 'what each search saw')
      note = (
        'The large dot is the rate that was taken; a ring, one at the edge of its grid.'
      )
      parts.append(tag('figure', tag('figcaption', note), scrolled(chart, 'chart')))
  parts.append(grid(section, section.tried, join('Learning rates ', kind)))
  parts.append(listed(section.said_of_searches))
  return folded(join('The search for learning rates ', kind), parts)


def _runs_of(section: Section, kind: Html) -> Html:
  known = {name for x in section.entries for name in x.mean}
  metric = next((m for m in section.metrics if m[0] in known), section.metrics[0])
  value = join(metric[1], ' ', kind)
  header = ['row', 'size', 'seed', 'status', value, 'fingerprint', 'seconds']
  rows = [_run(x, run, metric) for x in section.entries for run in x.runs]
  return table(join('Runs ', kind), header, rows)


def _run(entry: Entry, run: Run, metric: Metric) -> list[Any]:
  """A run of before a revision is named, and its values are not shown."""
  kept, status = run.recorded or run.before, run.status
  if run.before:
    status = f'not run again since revision {", ".join(run.lacks)}'
  if run.recorded and run.recorded.step is not None:
    status = f'{status} at step {run.recorded.step}'
  value, seconds = run.values.get(metric[0]), kept and kept.seconds
  return [
    label(entry.label),
    tag('td', entry.size),
    str(run.seed),
    tag('td', status),
    '-' if value is None else f'{value:.{metric[2]}f}',
    tag('td', tag('code', kept.fingerprint)) if kept else '-',
    '-' if seconds is None else f'{seconds:,.1f}',
  ]
