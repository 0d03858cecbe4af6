"""Charts of a table as SVG in the page: rows with error bars, rates, a curve's sketch.

Colours are those of the style sheet, so that they are right on a dark page too.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from elas_jax.tables.entries import Entry
from elas_jax.tables.figures import LOGARITHMIC
from elas_jax.tables.plan import Search
from elas_jax.tables.site.html import Html, join, tag
from elas_jax.tables.table import Metric, Published

LETTER = 6.8  # pixels of a wide letter
ROW, PLOT, EDGE, BELOW = 22, 420, 16, 44
COLOURS, DASHES = 6, ('none', '6 3', '2 2', '8 3 2 3')


@dataclasses.dataclass(frozen=True)
class Scale:
  """Numbers to pixels from `start` to `end`, straight or by their logarithms."""

  low: float
  high: float
  logarithmic: bool
  start: float
  end: float

  def __call__(self, x: float) -> float:
    of = math.log10 if self.logarithmic else float
    share = (of(x) - of(self.low)) / (of(self.high) - of(self.low))
    return round(self.start + share * (self.end - self.start), 1)

  def takes(self, x: float) -> bool:
    return math.isfinite(x) and (x > 0 or not self.logarithmic)

  @property
  def ticks(self) -> list[float]:
    if self.logarithmic:
      low, high = math.log10(self.low), math.log10(self.high)
      steps = (1,) if high - low > 3 else (1, 2, 5)
      decades = range(math.floor(low), math.ceil(high) + 1)
      found = [step * 10.0**n for n in decades for step in steps]
    else:
      rough = (self.high - self.low) / 5
      power = 10.0 ** math.floor(math.log10(rough))
      step = next(k * power for k in (1, 2, 5, 10) if k * power >= rough)
      first, last = math.ceil(self.low / step), math.floor(self.high / step)
      found = [n * step for n in range(first, last + 1)]
    return [x for x in found if self.low <= x <= self.high]


def scale_of(values: Iterable[float], logarithmic: bool, start: float, end: float) -> Scale:
  """With a margin of a twentieth at both ends."""
  found = [x for x in values if math.isfinite(x) and (x > 0 or not logarithmic)]
  low, high = min(found, default=1.0), max(found, default=1.0)
  if logarithmic:
    margin = (high / low) ** 0.05 if high > low else 2.0
    return Scale(low / margin, high * margin, True, start, end)
  margin = 0.05 * (high - low) or 0.01 * abs(high) or 1.0
  return Scale(low - margin, high + margin, False, start, end)


def drawing(width: float, height: float, label: str, *inside: Any) -> Html:
  size = {'width': f'{width:g}', 'height': f'{height:g}'}
  box = f'0 0 {width:g} {height:g}'
  return tag('svg', inside, **size, viewBox=box, role='img', aria_label=label)


def mark(x: float, y: float, *inside: Any, **attributes: Any) -> Html:
  return tag('circle', *inside, cx=x, cy=y, **attributes)


def stroke(x1: float, y1: float, x2: float, y2: float, kind: str) -> Html:
  return tag('line', x1=x1, y1=y1, x2=x2, y2=y2, class_=kind)


def text(x: float, y: float, words: str, anchor: str = 'start', kind: str = '') -> Html:
  return tag('text', words, x=x, y=y, text_anchor=anchor, class_=kind or None)


def below(across: Scale, top: float, bottom: float, name: str) -> Html:
  """The axis below a plot, with lines through it."""
  lines = [
    (stroke(x := across(tick), top, x, bottom, 'grid'),
     text(x, bottom + 15, f'{tick:g}', 'middle', 'axis'))
    for tick in across.ticks
  ]  # fmt: skip
  middle = (across.start + across.end) / 2
  return join(lines, text(middle, bottom + 34, name, 'middle', 'axis'))


def rows(
  entries: Sequence[Entry],
  metric: Metric,
  published: Callable[[Entry], Sequence[Published]],
  label: str,
) -> Html:
  """A dot with its error bar for each row; published values, where comparable, as ticks."""
  name, header, digits = metric
  left = min(24, max(len(x.label) for x in entries)) * LETTER + 24
  values = [y for x in entries for y in _ends(x, name)]
  values += [p.value for x in entries for p in published(x)]
  across = scale_of(values, name in LOGARITHMIC, left, left + PLOT)
  bottom = EDGE + ROW * len(entries)
  inside = [below(across, EDGE, bottom, header)]
  for number, x in enumerate(entries):
    middle = EDGE + ROW * (number + 0.5)
    inside.append(text(left - 8, middle + 4, _cut(x.label), 'end'))
    for p in published(x):
      if across.takes(p.value):
        tick = stroke(at := across(p.value), middle - 8, at, middle + 8, 'published')
        inside.append(tag('g', tag('title', f'{x.label}: {p} published'), tick))
    if name in x.mean:
      inside.append(_dot(x, name, x.shown(metric), across, middle))
    else:
      inside.append(text(left + 8, middle + 4, 'no value yet', kind='none'))
  return drawing(left + PLOT + 24, bottom + BELOW, label, inside)


def _cut(label: str) -> str:
  return label if len(label) <= 24 else label[:23] + '…'


def _ends(entry: Entry, name: str) -> list[float]:
  if name not in entry.mean:
    return []
  mean, spread = entry.mean[name], entry.std.get(name, 0.0)
  return [mean - spread, mean, mean + spread]


def _dot(entry: Entry, name: str, shown: str, across: Scale, y: float) -> Html:
  low, mean, high = (x if across.takes(x) else across.low for x in _ends(entry, name))
  bar = stroke(across(low), y, across(high), y, 'bar') if low < high else None
  title = tag('title', f'{entry.label}: {shown}')
  return tag('g', title, bar, mark(across(mean), y, r=3.5, class_='dot'))


def rates(searches: Sequence[Search], metric: Metric, label: str) -> Html:
  """What each search saw: its metric over the learning rate; the rate chosen is larger."""
  name, header, _ = metric
  points = {
    number: [(rate, run.values[name]) for rate, run in x.grid.items() if name in run.values]
    for number, x in enumerate(searches)
  }
  xs, ys = zip(*(p for of in points.values() for p in of))
  # One that is far too high hides what the others differ by.
  wide = min(ys) > 0 and max(ys) > 8 * min(ys)
  left, top, height = 64, EDGE, 260
  across = scale_of(xs, True, left, left + PLOT)
  up = scale_of(ys, wide or name in LOGARITHMIC, top + height, top)
  inside = [below(across, top, top + height, 'learning rate')]
  inside += [
    (stroke(left, y := up(tick), left + PLOT, y, 'grid'),
     text(left - 8, y + 4, f'{tick:g}', 'end', 'axis'))
    for tick in up.ticks
  ]  # fmt: skip
  inside.append(text(4, top - 4, header, kind='axis'))
  for number, x in enumerate(searches):
    of = [(rate, value) for rate, value in points[number] if up.takes(value)]
    if of:
      inside.append(_line(x, [(across(a), up(b)) for a, b in of], of, number))
  chart = drawing(left + PLOT + 24, top + height + BELOW, label, inside)
  return join(chart, _legend(searches, points))


def _line(search: Search, places: list[Any], of: list[Any], number: int) -> Html:
  path = ' '.join(f'{x:g},{y:g}' for x, y in places)
  kind = 'edge' if search.at_the_edge else 'chosen'
  marks = [
    mark(x, y, r=5, class_=kind) if rate == search.best else mark(x, y, r=2, class_='at')
    for (x, y), (rate, _) in zip(places, of)
  ]
  title = tag('title', search.row.label)
  line = tag('polyline', points=path, class_='line', stroke_dasharray=_dash(number))
  return tag('g', title, line, marks, class_=f'c{number % COLOURS}')


def _dash(number: int) -> str:
  return DASHES[number // COLOURS % len(DASHES)]


def _legend(searches: Sequence[Search], points: dict[int, list[Any]]) -> Html:
  key = lambda n: tag(
    'svg',
    tag('line', x1=0, y1=5, x2=26, y2=5, class_='line', stroke_dasharray=_dash(n)),
    width=26,
    height=10,
    aria_hidden='true',
  )
  found = [
    tag('li', key(n), tag('span', x.row.label), class_=f'c{n % COLOURS}')
    for n, x in enumerate(searches)
    if points[n]
  ]
  return tag('ul', found, class_='legend')


def spark(name: str, curve: Sequence[Sequence[Any]]) -> Html:
  """A curve in a cell, of what is finite in it."""
  points = [(s, v) for s, v in curve if v is not None and math.isfinite(v)]
  if not points:
    return tag('td', '-', class_='absent', title='no curve recorded')
  across = scale_of([s for s, _ in points], False, 0, 96)
  up = scale_of([v for _, v in points], False, 22, 2)
  path = ' '.join(f'{across(s):g},{up(v):g}' for s, v in points)
  (first, start), (last, end) = points[0], points[-1]
  label = f'{name} {start:g} at step {first:g}, {end:g} at step {last:g}'
  line = tag('polyline', points=path, class_='line')
  sketch = drawing(96, 24, label, tag('title', label), line)
  return tag('td', sketch, class_='spark', data_value=f'{end:g}')
