"""Compare runs: configs, sizes, curves and final values, paired by seed.

  python -m elas_jax.compare runs/elas_0 runs/elas_1 runs/adamw_0 runs/adamw_1
  python -m elas_jax.compare table1_perplexity/elas table1_perplexity/loro_relu2

A RUN is a workdir, TABLE/ROW or TABLE/ROW/SIZE of the recorded tables, or the fingerprint
of a recorded run. Workdirs, and fingerprints, that differ in nothing but the seed are one
side; the first side is compared with each of the others. Where zero lies in the t-interval
of the paired difference, no difference is shown. Prints a text and draws the curves; with
--output=FILE.json writes all of it.
"""

import argparse
import json
import math
import pathlib
import re
from collections.abc import Iterator, Sequence

from elas_jax.common.errors import UserError
from elas_jax.common.limits import cut, shown
from elas_jax.common.paired import with_spread
from elas_jax.common.places import place, write_text
from elas_jax.config.cli import Parser, run_command
from elas_jax.run.metrics import strict_json
from elas_jax.tables.comparison import Tree, comparison
from elas_jax.tables.overlay import overlay
from elas_jax.tables.sides import Side, read_sides

RESULTS = 'experiments/results'
PLOTS = pathlib.Path('runs/compare')
NAME = 100  # characters of a file's name
CELL = 60  # of a value of the config


def main(arguments: list[str] | None = None) -> None:
  options = _parser().parse_args(arguments)
  if options.plot and options.plot.suffix != '.png':
    raise UserError(f'--plot={options.plot}: must end in .png')
  if options.output:
    _check_output(options.output)
  sides = read_sides(options.runs, options.results, options.scale)
  metrics = options.metrics.split(',') if options.metrics is not None else None
  result = comparison(sides, metrics, options.confidence)
  print(text(result), flush=True)
  if options.plot != '':
    path = options.plot or PLOTS / f'{_file_name(sides)}.png'
    result['plot'] = _plotted(path, sides, result)
  if options.output:
    _written(options.output, result)


def _parser() -> Parser:
  first, _, rest = __doc__.partition('\n')
  parser = Parser(
    prog='python -m elas_jax.compare',
    description=first,
    epilog=rest.strip('\n'),
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add('runs', nargs='+', metavar='RUN', help='workdir, TABLE/ROW[/SIZE] or fingerprint')
  parser.add_place(
    '--results',
    default=pathlib.Path(RESULTS),
    help=f'folder of runs.jsonl and tables/; default: {RESULTS}',
  )
  add('--scale', help='of a table that has several, such as proxy')
  add('--metrics', help='names, joined by commas; default: those of the tables, else all')
  add('--confidence', type=_share, default=0.95, help='of the intervals; default: 0.95')
  add('--plot', type=_plot, help=f"FILE.png; '' = none; default: {PLOTS}/NAMES.png")
  parser.add_place('--output', help='FILE.json for all of it')
  return parser


def _share(text: str) -> float:
  try:
    value = float(text)
  except ValueError:
    value = math.nan
  if not 0 < value < 1:
    raise argparse.ArgumentTypeError(f'{shown(text)}: must lie between 0 and 1')
  return value


def _plot(text: str) -> pathlib.Path | str:
  return place('--plot', text) if text else ''


def _file_name(sides: Sequence[Side]) -> str:
  names = '-'.join(re.sub(r'[^\w.]+', '_', side.label).strip('_') for side in sides)
  return names[:NAME]


def _plotted(path: pathlib.Path, sides: Sequence[Side], result: Tree) -> str | None:
  scale = ', '.join(dict.fromkeys(x['scale'] for x in result['sides'] if x['scale']))
  try:
    drawn = overlay(path, sides, scale)
  except OSError as error:
    raise UserError(f'--plot={path}: not written: {error.strerror}') from error
  print(f'curves in {path}' if drawn else 'no curves: none is recorded of these runs')
  return str(path) if drawn else None


def _check_output(path: pathlib.Path) -> None:
  """Refuses what is no file of an earlier comparison."""
  if path.suffix != '.json' or not path.parent.is_dir():
    raise UserError(f'--output={path}: must be a FILE.json in a folder that is there')
  try:
    known = not path.exists() or 'sides' in json.loads(path.read_text())
  except (OSError, ValueError, TypeError):
    known = False
  if not known:
    raise UserError(f'--output={path}: is there and is no comparison; give another file')


def _written(path: pathlib.Path, result: Tree) -> None:
  try:
    write_text(path, strict_json(result, indent=2) + '\n')
  except OSError as error:
    raise UserError(f'--output={path}: not written: {error.strerror}') from error
  print(f'written to {path}')


def text(result: Tree) -> str:
  """The comparison for reading."""
  labels = [side['label'] for side in result['sides']]
  parts = (_sides(result), _config(result, labels), _sizes(result, labels))
  pairs = [_pair(pair) for pair in result['pairs']]
  blocks = ['\n'.join(lines) for lines in (*parts, *pairs, _warnings(result))]
  return '\n\n'.join(block for block in blocks if block)


def _sides(result: Tree) -> Iterator[str]:
  yield 'Sides'
  labels = list(dict.fromkeys(tuple(side['scale_labels']) for side in result['sides']))
  for side in result['sides']:
    seeds = ', '.join(map(str, side['seeds'])) or 'none'
    commits = ', '.join(side['commits']) or '-'
    yield f'  {side["label"]}: {" ".join(side["given"])}'
    yield f'    seeds {seeds}; commit {commits}; device {", ".join(side["devices"]) or "-"}'
    if len(labels) > 1:
      yield from (f'    {label}' for label in side['scale_labels'])
  if len(labels) == 1:
    yield from (f'  {label}' for label in labels[0])


def _config(result: Tree, labels: Sequence[str]) -> Iterator[str]:
  if not result['config']:
    unknown = any(side['config'] is None for side in result['sides'])
    yield f'Configs: {"not known" if unknown else "no field differs"}'
    return
  yield 'Configs: the fields that differ'
  rows = [
    [row['field'], *('not known' if x is None else cut(x, CELL) for x in row['values'])]
    for row in result['config']
  ]
  yield from table(['', *labels], rows)


def _sizes(result: Tree, labels: Sequence[str]) -> Iterator[str]:
  yield 'Sizes (matched: within 1 %)'
  rows = []
  for row in result['sizes']:
    values = ['-' if x is None else _size(x) for x in row['values']]
    others = [_matched(*of) for of in zip(row['more'], row['matched'])]
    if len(set(others)) > 1:
      others = [f'{label} {of}' for label, of in zip(labels[1:], others)]
    rows.append([row['title'], *values, '; '.join(dict.fromkeys(others))])
  yield from table(['', *labels, ''], rows)


def _size(value: float) -> str:
  return f'{value:,.0f}' if value < 1e10 else f'{value:.4g}'


def _matched(more: float | None, matched: bool | None) -> str:
  if more is None:
    return 'not known'
  if matched:
    return 'matched'
  return f'{100 * more:+.1f} %' if math.isfinite(more) else 'not matched'


def _pair(pair: Tree) -> Iterator[str]:
  first, other = pair['sides']
  scale = f'{pair["scale"]}: ' if pair['scale'] else ''
  seeds = f'paired by seed ({", ".join(map(str, pair["seeds"]))})' if pair['seeds'] else ''
  yield f'{scale}{first} - {other}, mean ± sample standard deviation, {seeds}'.rstrip(', ')
  rows = []
  for of in pair['values']:
    digits = of['digits']
    means = [with_spread(x['mean'], x['deviation'], digits) for x in of['sides']]
    interval = '-'
    if of['low'] is not None:
      interval = f'{of["low"]:+.{digits}f} to {of["high"]:+.{digits}f}'
    difference = with_spread(of['mean'], of['deviation'], digits, '+')
    rows.append([of['title'], *means, difference, interval])
  share = f'{100 * pair["confidence"]:g} % interval'
  if rows:
    yield from table(['', first, other, 'difference', share], rows)
  if pair['verdict']:
    yield f'  {scale}{pair["verdict"]}'
    return
  titles: dict[str, list[str]] = {}
  for of in pair['values']:
    titles.setdefault(of['verdict'], []).append(of['title'])
  yield from (f'  {scale}{"; ".join(of)}: {verdict}' for verdict, of in titles.items())


def _warnings(result: Tree) -> Iterator[str]:
  for line in result['warnings']:
    yield f'WARNING: {line}'


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
  """Columns as wide as their widest cell; all but the first to the right."""
  widths = [max(map(len, column)) for column in zip(head, *rows)]
  for row in (head, *rows):
    cells = [f'{cell:>{width}s}' for cell, width in zip(row[1:], widths[1:])]
    yield '  ' + '  '.join([f'{row[0]:{widths[0]}s}', *cells]).rstrip()


if __name__ == '__main__':
  run_command(main)
