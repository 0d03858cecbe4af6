"""A table of an experiment as Markdown and PNG, from its result as JSON holds it."""

import math
import pathlib
import statistics
from typing import Any

import matplotlib

from experiments.published import MARKS, Published

# Of tables of language models, which is what result files without these two are of.
PUBLISHED = 'published C4 perplexity'
ABOUT = (
  'Ours: perplexity and bits per byte are token-weighted; the published convention '
  'divides the sum of batch means by one batch too many, as the published values do. '
)
# (metric, header, digits)
METRICS = (
  ('eval/bits_per_byte', 'bits per byte', 4),
  ('eval/perplexity', 'perplexity', 3),
  ('eval/published_perplexity', 'perplexity, published convention', 3),
)
ACTIVATIONS = (
  ('activations/zero_fraction', 'zeros before pruning', 4),
  ('activations/dropped_mass', 'dropped mass', 4),
  ('activations/dropped_mass_transposable', 'dropped mass, transposable', 4),
  ('activations/crowded_groups', 'groups with more than 2', 4),
)


def spread(runs: list[dict[str, Any]]) -> tuple[dict[str, float], dict[str, float]]:
  """(mean, sample standard deviation) of every value over the finished runs.

  One run has no standard deviation.
  """
  values = [run['values'] for run in runs if run['status'] == 'finished']
  mean, std = {}, {}
  for name in values[0] if values else ():
    numbers = [v[name] for v in values if v.get(name) is not None]
    if len(numbers) == len(values):
      mean[name] = statistics.mean(numbers)
      if len(numbers) > 1:
        std[name] = statistics.stdev(numbers)
  return mean, std


def shown(
  metrics: tuple[tuple[str, str, int], ...], entries: list[dict[str, Any]]
) -> list[tuple[str, str, int]]:
  """The columns of a table: not those of activations that no row has a value of."""
  return [
    metric
    for metric in metrics
    if not metric[0].startswith('activations/')
    or any(metric[0] in entry['mean'] for entry in entries)
  ]


def gap(
  entries: list[dict[str, Any]], size: str, one: str, other: str, metrics: Any = METRICS
) -> dict[str, Any] | None:
  """Differences of row `one` minus row `other`, seed by seed; None if no seed has both."""
  rows = {entry['label']: entry for entry in entries if entry['size'] == size}
  finished = lambda label: {
    run['seed']: run['values'] for run in rows[label]['runs'] if run['status'] == 'finished'
  }
  a, b = finished(one), finished(other)
  seeds = sorted(set(a) & set(b))
  if not seeds:
    return None
  names = [metric for metric, _, _ in metrics]
  differences = [
    {
      'status': 'finished',
      'values': {n: a[s][n] - b[s][n] for n in names if None not in (a[s][n], b[s][n])},
    }
    for s in seeds
  ]
  mean, std = spread(differences)
  return {'size': size, 'rows': [one, other], 'seeds': seeds, 'mean': mean, 'std': std}


def gap_line(gap: dict[str, Any], metrics: Any = METRICS) -> str:
  parts = []
  for metric, header, digits in metrics:
    if metric in gap['mean']:
      value = with_spread(gap['mean'][metric], gap['std'].get(metric), digits, '+')
      parts.append(f'{header} {value}')
  seeds = ', '.join(map(str, gap['seeds']))
  name = f'{gap["rows"][0]} - {gap["rows"][1]} ({gap["size"]})'
  return f'{name}: {"; ".join(parts)} (paired, seeds {seeds})'


def gaps(
  entries: list[dict[str, Any]], pairs: tuple[tuple[str, str], ...], metrics: Any = METRICS
) -> tuple[list[dict[str, Any]], list[str]]:
  """For JSON, and as lines of text: `gap` of every pair of rows and every size."""
  found, lines = [], []
  for size in dict.fromkeys(entry['size'] for entry in entries):
    for one, other in pairs:
      if one_gap := gap(entries, size, one, other, metrics):
        found.append(one_gap)
        lines.append(gap_line(one_gap, metrics))
      else:
        lines.append(f'{one} - {other} ({size}): not known, no seed has finished both')
  return found, lines


def ranking(
  entries: list[dict[str, Any]], metric: tuple[str, str, int], best: Any = max
) -> tuple[list[str], str]:
  """Labels by mean, the best first, and the line that says so with spread and size.

  Rows without a value are last.
  """
  name, header, digits = metric
  known = [entry for entry in entries if name in entry['mean']]
  order = sorted(known, key=lambda entry: entry['mean'][name], reverse=best is max)
  text = ', '.join(
    f'{e["label"]} {with_spread(e["mean"][name], e["std"].get(name), digits)} '
    f'({e["parameters"]:,})'
    for e in order
  )
  rest = [entry['label'] for entry in entries if entry not in known]
  missing = f'; without a value: {", ".join(rest)}' if rest else ''
  return [
    e['label'] for e in order
  ] + rest, f'By mean {header} (parameters): {text}{missing}.'


def with_spread(mean: float, std: float | None, digits: int, sign: str = '') -> str:
  text = f'{mean:{sign}.{digits}f}'
  return text if std is None else f'{text} ± {std:.{digits}f}'


def _metric(entry: dict[str, Any], metric: str, digits: int) -> str:
  if metric not in entry['mean']:
    return '-'
  text = with_spread(entry['mean'][metric], entry['std'].get(metric), digits)
  finished = sum(run['status'] == 'finished' for run in entry['runs'])
  few = finished < len(entry['runs'])
  return text + (f' ({finished} of {len(entry["runs"])} seeds)' if few else '')


def _non_finite(entry: dict[str, Any]) -> str:
  """Whether a loss was not finite, run by run; each step of each run is checked."""
  if entry['problem']:
    return entry['problem']
  by_status = lambda status: [r for r in entry['runs'] if r['status'] == status]
  parts = [f'seed {r["seed"]} at step {r["step"]}' for r in by_status('diverged')]
  if finished := by_status('finished'):
    parts.append(f'none in {len(finished)} run{"s" if len(finished) > 1 else ""}')
  if missing := by_status('not run'):
    parts.append(f'{len(missing)} not run yet')
  return ', '.join(parts)


def published_value(cell: Published) -> str:
  """For JSON, which has no NaN."""
  text = f'{cell.value:.2f}'.replace('nan', 'NaN')
  return text if cell.std is None else f'{text} ± {cell.std:.2f}'


def _published(entry: dict[str, Any], one_size: bool) -> str:
  cells = []
  for cell in entry['published']:
    size = '' if one_size else f'{cell["size"]} '
    cells.append(f'{size}{cell["value"]} [{cell["mark"]}]')
  return ', '.join(cells) or '-'


def _memory(entry: dict[str, Any]) -> str:
  names = ('parameter_bytes', 'buffer_bytes', 'optimizer_bytes')
  return f'{sum(entry[name] for name in names) / 1e6:,.2f} MB'


def markdown(result: dict[str, Any]) -> str:
  """The whole result file as Markdown; nothing in it that is not in the JSON."""
  run, entries = result['run'], result['rows']
  lines = [f'# {result["title"]}', '', f'**Scale: {result["label"]}.**', '']
  if not result['complete']:
    lines += ['**Incomplete: not all runs are done.**', '']
  with_size = len({entry['size'] for entry in entries}) > 1
  extra = list(dict.fromkeys(x for entry in entries for x in entry.get('cells', {})))
  with_published = any(entry['published'] for entry in entries)
  header = ['row', *(['size'] if with_size else [])]
  header += [result.get('published', PUBLISHED)] if with_published else []
  header += [name for _, name, _ in result['metrics']] + extra
  header += ['parameters', 'parameters + optimiser', 'learning rate', 'non-finite loss']
  lines += ['| ' + ' | '.join(header) + ' |', '|' + '---|' * len(header)]
  for entry in entries:
    cells = [entry['label'], *([entry['size']] if with_size else [])]
    if with_published:
      cells.append(_published(entry, result['scale'] == 'paper'))
    cells += [_metric(entry, metric, digits) for metric, _, digits in result['metrics']]
    cells += [entry.get('cells', {}).get(name, '-') for name in extra]
    if entry['problem']:
      cells += ['-', '-', '-']
    else:
      done = any(run['status'] != 'not run' for run in entry['runs'])
      rate = f'{entry["learning_rate"]:g}' if done else '-'
      cells += [f'{entry["parameters"]:,}', _memory(entry), rate]
    cells.append(_non_finite(entry))
    lines.append('| ' + ' | '.join(cells) + ' |')
  lines += ['', *(f'- {line}' for line in result['text'] + _footnotes(result))]
  lines += [
    '',
    f'Made by `{result["command"]}`; last written {run["time"]}, jax '
    f'{run["versions"]["jax"]}, {result["machine"]}. Runs at commit '
    f'{", ".join(_commits(entries)) or "-"}. The JSON beside this file has every '
    'seed and the command that repeats it.',
  ]
  return '\n'.join(lines) + '\n'


def _commits(entries: list[dict[str, Any]]) -> list[str]:
  # A hash of 40 letters, with '-modified' where the tree was.
  commits = {run['commit'] for e in entries for run in e['runs'] if 'commit' in run}
  return sorted(commit[:12] + commit[40:] for commit in commits)


def _footnotes(result: dict[str, Any]) -> list[str]:
  sources = {}
  for entry in result['rows']:
    for cell in entry['published']:
      labels = sources.setdefault((cell['source'], cell['mark']), {})
      labels[entry['label']] = None
  lines = []
  if any(len(entry['runs']) > 1 for entry in result['rows']):
    lines.append('± is the sample standard deviation over seeds.')
  lines.append(
    result.get('about', ABOUT)
    + 'Memory is what stays from step to step, from exact shapes; no activations.'
  )
  used = {mark for _, mark in sources}
  lines += [f'[{mark}]: {text}.' for mark, text in MARKS.items() if mark in used]
  lines += [
    f'Published: {source} [{mark}] for {", ".join(labels)}.'
    for (source, mark), labels in sources.items()
  ]
  if result['overrides']:
    lines.append(f'Overrides of every run: `{" ".join(result["overrides"])}`.')
  return lines


PANELS = 4  # side by side


def plot(result: dict[str, Any], path: pathlib.Path) -> None:
  """The first metric of every row with error bars, one panel a size."""
  matplotlib.use('Agg')  # no display needed
  import matplotlib.pyplot as plt

  sizes = list(dict.fromkeys(entry['size'] for entry in result['rows']))
  of_size = {s: [e for e in result['rows'] if e['size'] == s] for s in sizes}
  columns = min(len(sizes), PANELS)
  lines, rows = math.ceil(len(sizes) / columns), max(map(len, of_size.values()))
  figure, panels = plt.subplots(
    lines,
    columns,
    figsize=(max(7.0, 4.2 * columns), (1.8 + 0.3 * rows) * lines),
    layout='constrained',
    squeeze=False,
  )
  for axes in panels.flat[len(sizes) :]:
    axes.set_visible(False)
  for (size, entries), axes in zip(of_size.items(), panels.flat):
    _panel(axes, size, entries, result['metrics'])
  state = '' if result['complete'] else ' (incomplete)'
  label = result['label'].partition(':')[0]
  figure.suptitle(f'{result["title"]}{state}\nScale: {label}', fontsize=10)
  save_figure(figure, path)


def _panel(
  axes: Any, size: str, entries: list[dict[str, Any]], metrics: list[tuple[str, str, int]]
) -> None:
  """Of the first metric that a row has a value of."""
  known = {name for entry in entries for name in entry['mean']}
  metric, name, _ = next((m for m in metrics if m[0] in known), metrics[0])
  for height, entry in enumerate(entries):
    if metric in entry['mean']:
      spread = entry['std'].get(metric)
      axes.errorbar(
        entry['mean'][metric], height, xerr=spread, fmt='o', capsize=3, color='C0'
      )
    else:
      axes.text(0.5, height, 'no value', transform=axes.get_yaxis_transform(), va='center')
  axes.set_yticks(range(len(entries)), [entry['label'] for entry in entries])
  axes.set(xlabel=f'validation {name}', title=size, ylim=(len(entries) - 0.5, -0.5))
  if metric == 'eval/rmse':  # they differ by orders of magnitude
    axes.set_xscale('log')
  axes.grid(alpha=0.3)


def save_figure(figure: Any, path: pathlib.Path) -> None:
  """Writes a whole file or, if killed, nothing."""
  import matplotlib.pyplot as plt

  temporary = path.with_suffix('.tmp.png')
  figure.savefig(temporary, dpi=130)
  plt.close(figure)
  temporary.replace(path)
