"""Figures of a table at a scale, a `Section` of render.py: rows, and learning rates."""

import hashlib
import json
import math
import pathlib
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from PIL import Image

from elas_jax.common.errors import UserError
from elas_jax.run.workdir import open_run
from elas_jax.tables.entries import Entry
from elas_jax.tables.plan import Line, Search
from elas_jax.tables.table import Metric

FORM = 2  # of these figures: another number draws all of them anew
PANELS = 4  # side by side
LOGARITHMIC = ('eval/rmse', 'eval/loss')  # rows differ by orders of magnitude


def new(rows: int, columns: int, size: tuple[float, float], title: str) -> tuple[Any, Any]:
  """(figure, array of axes)."""
  figure = Figure(figsize=size, layout='constrained')
  FigureCanvasAgg(figure)
  panels = figure.subplots(rows, columns, squeeze=False)
  figure.suptitle(title, fontsize=10)
  return figure, panels


def save(figure: Figure, path: pathlib.Path, drawn: str = '') -> None:
  """Writes a whole file or, if killed, nothing; what is `drawn` stands in it."""
  temporary = path.with_suffix('.tmp.png')
  # Without the version of the library, so that the same figure is the same file.
  about = {'Software': None, 'Description': drawn}
  try:
    figure.savefig(temporary, dpi=110, metadata=about)
    temporary.replace(path)
  except OSError as error:
    raise UserError(f'{path}: cannot be written: {error.strerror}') from error


def plot(section: Any, path: pathlib.Path) -> None:
  """The rows with error bars, one panel a size; the searches in another file.

  A file in which the same is drawn stays: drawing takes longer than all the rest.
  """
  values = [(x.size, x.label, x.mean, x.std) for x in section.entries]
  _plot(_rows, section, path, values)
  if section.tried:
    tried = [(x.label, x.rate, x.mean) for x in section.tried]
    _plot(_rates, section, path.with_stem(f'{path.stem}_rates'), tried)


def _plot(draw: Any, section: Any, path: pathlib.Path, values: list) -> None:
  text = json.dumps([FORM, _title(section), section.metrics, values])
  drawn = hashlib.sha256(text.encode()).hexdigest()
  if not path.exists() or _drawn(path) != drawn:
    save(draw(section), path, drawn)


def _drawn(path: pathlib.Path) -> str | None:
  try:
    with Image.open(path) as image:
      return image.info.get('Description')
  except OSError:  # damaged
    return None


def _title(section: Any) -> str:
  done, known = section.done
  state = '' if done == known else f' ({done} of {known} runs)'
  label = section.label.partition(':')[0]
  return f'{section.table.title}{state}\nScale: {label}'


def _rows(section: Any) -> Figure:
  sizes = list(dict.fromkeys(x.size for x in section.entries))
  of_size = {s: [x for x in section.entries if x.size == s] for s in sizes}
  columns = min(len(sizes), PANELS)
  count, rows = math.ceil(len(sizes) / columns), max(map(len, of_size.values()))
  size = (max(7.0, 4.2 * columns), (1.8 + 0.3 * rows) * count)
  figure, panels = new(count, columns, size, _title(section))
  for axes in panels.flat[len(sizes) :]:
    axes.set_visible(False)
  for (name, entries), axes in zip(of_size.items(), panels.flat):
    _panel(axes, name, entries, section.metrics)
  return figure


def _panel(axes: Any, size: str, entries: list[Entry], metrics: list[Metric]) -> None:
  """Of the first metric that a row has a value of."""
  known = {name for entry in entries for name in entry.mean}
  metric, name, _ = next((m for m in metrics if m[0] in known), metrics[0])
  points = [
    (x.mean[metric], height, x.std.get(metric, 0.0))
    for height, x in enumerate(entries)
    if metric in x.mean
  ]
  if points:
    x, y, spread = zip(*points)
    axes.plot(x, y, 'o', color='C0')
    bars = [(mean, height, std) for mean, height, std in points if std]
    if bars:
      x, y, spread = zip(*bars)
      axes.errorbar(x, y, xerr=spread, fmt='none', capsize=3, color='C0')
  for height, entry in enumerate(entries):
    if metric not in entry.mean:
      axes.text(0.5, height, 'no value', transform=axes.get_yaxis_transform(), va='center')
  axes.set_yticks(range(len(entries)), [entry.label for entry in entries])
  axes.set(xlabel=f'validation {name}', title=size, ylim=(len(entries) - 0.5, -0.5))
  if metric in LOGARITHMIC:
    axes.set_xscale('log')
    _plain(axes.xaxis)
  axes.grid(alpha=0.3)


def _plain(axis: Any) -> None:
  """Numbers at the powers of ten alone: formulas and small ones take longest to draw."""
  axis.set_major_formatter('{x:g}')
  axis.set_minor_formatter(NullFormatter())


def _rates(section: Any) -> Figure:
  """What each search saw: the metric by which it chose over the rate, one panel a size."""
  count = len(section.rates)
  figure, panels = new(count, 1, (8.0, 5.0 * count), _title(section))
  for (size, rates), axes in zip(section.rates.items(), panels.flat):
    of_size = [x for x in section.plan.searches if x.size == size]
    _searches(axes, size if count > 1 else '', rates.metric, of_size)
  return figure


def _searches(axes: Any, size: str, metric: Metric, searches: list[Search]) -> None:
  name, header, _ = metric
  for number, search in enumerate(searches):
    points = [
      (rate, run.values[name]) for rate, run in search.grid.items() if name in run.values
    ]
    if points:
      style = {'color': f'C{number % 10}', 'marker': 'osv^D'[number // 10 % 5]}
      axes.plot(*zip(*points), label=search.row.label, lw=1, ms=4, **style)
  label = f'validation {header}'
  axes.set(xscale='log', xlabel='learning rate', ylabel=label, title=size)
  _plain(axes.xaxis)
  if name in LOGARITHMIC:
    axes.set_yscale('log')
    _plain(axes.yaxis)
  axes.grid(alpha=0.3)
  if axes.lines:
    axes.legend(fontsize=7, ncols=2, loc='center left', bbox_to_anchor=(1, 0.5))


def trained(lines: list[Line], runs: pathlib.Path, path: pathlib.Path, panel: Any) -> None:
  """`panel`(axes, run) of the first seed of each line, by its checkpoint in `runs`.

  A figure stays as it is if a run of it is not there.
  """
  lines = [x for x in lines if x.runs and x.runs[0].status == 'finished']
  workdirs = [x.runs[0].workdir(runs) for x in lines]
  if any(not (x / 'checkpoints').is_dir() for x in workdirs):
    print(f'figure left as it is: {path}, not all of its runs are in {runs}')
  elif lines:
    count = math.ceil(len(lines) / PANELS)
    title = f'Seed {lines[0].runs[0].seed}'
    figure, panels = new(count, PANELS, (3.2 * PANELS, 2.6 * count), title)
    for axes in panels.flat[len(lines) :]:
      axes.set_visible(False)
    for line, workdir, axes in zip(lines, workdirs, panels.flat):
      panel(axes, open_run(workdir, None, {}))
      axes.set_title(f'{line.size}, {line.row.label}', fontsize=9)
    save(figure, path)
    print(f'figure: {path}')
