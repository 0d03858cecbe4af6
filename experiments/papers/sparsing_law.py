"""How the share of active neurons changes with data, and with width over depth.

  python -m experiments.run sparsing_law --scale=proxy --workers=2

Decoders with gated feed-forwards, measured by PPL-1% sparsity at twelve evaluations:

  relu, silu       at D 64, N 4: the share of active neurons over the bytes of training
  relu_N           ReLU at about the same parameters of layers, D / N from 2 to 128

Of relu and silu it is said as well how massive activations come about (arXiv 2508.03616).

Reproduces: Sparsing Law (arXiv 2411.02335) at 0.1 to 2.4 B and up to 200 billion tokens. It
finds that of ReLU the share falls with data D, A = exp(b - c D^alpha) + A0, of SiLU it
rises, A = A0 - c / D^alpha, and that it rises with width over depth up to 114. Here both
laws are fitted to both, D in millions of bytes, without the first evaluation (warm-up), by
least squares from several starts. Published c and alpha are of billions of tokens.
Hardware: proxy two CPU cores, estimated at 45 minutes, 18 runs.
"""

import pathlib
import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from elas_jax.config.config import Config
from elas_jax.run.plots import pyplot
from elas_jax.run.record import Recorded
from elas_jax.systems.measures.massive import Massive
from elas_jax.tables.entries import Entry, gap_lines, of_line
from elas_jax.tables.overlay import mean_curve
from elas_jax.tables.plan import At, Line
from elas_jax.tables.planned_run import Run
from elas_jax.tables.table import Row, Table
from experiments.language import LANGUAGE, METRICS, scales

RATIO, MASSIVE = 'ppl_sparsity/activation_ratio', 'massive/ratio'
MEASURED = ((RATIO, 'active (PPL-1%)', 4), ('ppl_sparsity/cett', 'CETT', 4))
EVALUATIONS = 12
# N -> D, of about the parameters that layers of N 4 and D 64 have.
SHAPES = {1: 128, 2: 88, 7: 48, 16: 32}
BASES = ('relu', 'silu')


class Law(NamedTuple):
  """A formula of D in millions of bytes, names of its numbers, and where a fit starts."""

  text: str
  names: tuple[str, ...]
  of: Callable[..., Any]
  starts: tuple[tuple[float, ...], ...]


LAWS = {
  'falling': Law(
    'exp(b - c D^alpha) + A0',
    ('alpha', 'b', 'c', 'A0'),
    lambda D, alpha, b, c, A0: np.exp(np.clip(b - c * D**alpha, -50, 5)) + A0,
    ((0.5, -1.0, 0.5, 0.1), (1.0, -1.0, 0.2, 0.3), (0.3, 0.0, 1.0, 0.05)),
  ),
  'rising': Law(
    'A0 - c / D^alpha',
    ('alpha', 'c', 'A0'),
    lambda D, alpha, c, A0: A0 - c / D**alpha,
    ((0.5, 0.1, 0.4), (1.0, 0.1, 0.6), (0.5, -0.1, 0.3)),
  ),
}


class Fit(NamedTuple):
  law: Law
  values: tuple[float, ...]
  error: float  # root of the mean square

  def __str__(self) -> str:
    numbers = ', '.join(f'{name} {x:.3g}' for name, x in zip(self.law.names, self.values))
    return f'A = {self.law.text} with {numbers}: RMS error {self.error:.4f}'


def fit(law: Law, points: list[tuple[float, float]]) -> Fit | None:
  """Of (D, A); None where there are no more points than numbers, or no start ends."""
  from scipy import optimize

  if len(points) <= len(law.names):
    return None
  D, A = np.array(points).T
  found = []
  for start in law.starts:
    try:
      values, _ = optimize.curve_fit(law.of, D, A, start, maxfev=20_000)
    except (RuntimeError, ValueError):  # no end; or a number that is not finite
      continue
    error = float(np.sqrt(np.mean((law.of(D, *values) - A) ** 2)))
    found.append(Fit(law, tuple(map(float, values)), error))
  return min(found, key=lambda one: one.error, default=None)


def rows(at: At) -> list[Row]:
  usual = at.config('full')
  every = {'eval.every': max(usual.train.steps // EVALUATIONS, 1)}
  every |= {'eval.measures': 'ppl_sparsity,massive', 'checkpoint.every': usual.train.steps}
  rate, where = Row('full', 'full'), 'model.feed_forward.activation'
  found = [Row(name, 'full', every | {where: name}, rate_of=rate) for name in BASES]
  for layers, width in SHAPES.items():
    sizes = {'model.width': width, 'model.layers': layers}
    sizes |= {'model.feed_forward_width': 11 * width // 4, 'model.unroll': min(layers, 4)}
    if at.scale == 'smoke':
      sizes = {'model.layers': layers}
    fields = every | {where: 'relu'} | sizes
    found.append(Row(f'relu_{layers}', 'full', fields, rate_of=rate))
  return found


def millions(config: Config, step: float) -> float:
  """Bytes of training by then."""
  return step * config.data.batch_size * config.data.sequence_length / 1e6


def points(config: Config, runs: list[Recorded]) -> list[tuple[float, float]]:
  """(millions of bytes, mean share over seeds), without the first evaluation."""
  curves = [run.curve[RATIO] for run in runs if RATIO in run.curve]
  if not curves:
    return []
  return [(millions(config, step), x) for step, x in mean_curve(curves)][1:]


def of_entry(entry: Entry) -> list[tuple[float, float]]:
  runs = [run.recorded for run in entry.runs if run.recorded]
  return points(entry.runs[0].config, runs) if runs else []


def conclude(entries: list[Entry]) -> list[str]:
  lines = []
  for entry in (x for x in entries if x.label in BASES):
    found = of_entry(entry)
    for law in LAWS.values():
      if one := fit(law, found):
        lines.append(f'{entry.label}, {len(found)} evaluations: {one}.')
    if len(found) > 1:
      lines.append(_trend(entry.label, found))
  pairs = [('relu', 'silu'), *((f'relu_{layers}', 'relu') for layers in SHAPES)]
  metrics = [MEASURED[0], METRICS[0]]
  for metric in metrics:
    lines += gap_lines(entries, pairs, [metric])
  return lines + _by_shape(entries) + massive([x for x in entries if x.label in BASES])


def massive(entries: list[Entry]) -> list[str]:
  """The largest activation over the median one, and the curve of arXiv 2508.03616."""
  lines = []
  for entry in entries:
    curves = [x.recorded.curve[MASSIVE] for x in entry.runs if _has(x, MASSIVE)]
    points = mean_curve(curves) if curves else []
    if len(points) < Massive.least:
      continue
    steps, values = np.array(points, float).T
    curve = Massive().fitted(steps, values)
    numbers = ', '.join(f'{name} {x:.3g}' for name, x in curve.parameters.items())
    lines.append(
      f'{entry.label}: the largest entry of a layer is {values[0]:.1f} times the median '
      f'at the first evaluation and {values[-1]:.1f} times at the last (means over layers '
      f'and seeds); A exp(-lambda x) log(x) + K with {numbers}, R2 '
      f'{curve.r2(steps, values):.3f}.'
    )
  return lines


def _has(run: Run, name: str) -> bool:
  return run.recorded is not None and name in run.recorded.curve


def _trend(label: str, found: list[tuple[float, float]]) -> str:
  (first, start), (last, end) = found[0], found[-1]
  return (
    f'{label}: the share is {start:.4f} at {first:.2f} million bytes and {end:.4f} at '
    f'{last:.2f} million (means over seeds).'
  )


def _by_shape(entries: list[Entry]) -> list[str]:
  known = {
    x.runs[0].config.model.width / x.runs[0].config.model.layers: x.mean[RATIO]
    for x in entries
    if x.label.startswith('relu') and x.runs and RATIO in x.mean
  }
  if len(known) < 3:
    return []
  ratios = sorted(known)
  slope, _ = statistics.linear_regression(ratios, [known[x] for x in ratios])
  shown = ', '.join(f'{known[x]:.4f} at {x:g}' for x in ratios)
  return [
    f'Share of active neurons by width over depth: {shown}; a line through these has the '
    f'slope {slope:+.2e}.'
  ]


def cells(config: Config, entry: Entry) -> dict[str, str]:
  model = config.model
  return {
    'D': str(model.width),
    'N': str(model.layers),
    'D / N': f'{model.width / model.layers:.3g}',
  }


def draw(lines: list[Line], runs: pathlib.Path, path: pathlib.Path) -> None:
  """The shares over data, with both laws."""
  entries = [of_line(line) for line in lines if line.row.label in BASES]
  found = {entry.label: x for entry in entries if len(x := of_entry(entry)) > 1}
  if not found:
    return
  plt = pyplot()
  figure, axes = plt.subplots(figsize=(7, 4.5), layout='constrained')
  for number, (label, x) in enumerate(found.items()):
    D, A = np.array(x).T
    axes.plot(D, A, 'o', color=f'C{number}', label=label)
    dense = np.linspace(D[0], D[-1], 200)
    for style, law in zip(('-', ':'), LAWS.values()):
      if one := fit(law, x):
        axes.plot(dense, law.of(dense, *one.values), style, color=f'C{number}', lw=1.2)
  axes.set(
    xlabel='millions of bytes of training',
    ylabel='share of active neurons, PPL-1%',
    title='solid: exp(b - c D^alpha) + A0; dotted: A0 - c / D^alpha',
  )
  axes.grid(alpha=0.3)
  axes.legend()
  figure.savefig(path.with_name(f'{path.stem}_law.png'), dpi=130)
  plt.close(figure)


TABLE = Table(
  title='Sparsing law: active neurons over data, and by width over depth',
  rows=rows,
  family=LANGUAGE,
  scales=scales(paper=()),
  metrics=METRICS[:1] + MEASURED,
  cells=cells,
  conclude=conclude,
  draw=draw,
  notes=(
    'Active (PPL-1%): the share of neurons that is left when so many are left out that '
    'perplexity rises by 1 %, in one validation batch after the last step; its mean over '
    'layers. CETT: the error of each layer at which that is so.',
    'All rows have the learning rate that was found for full of table 1, also at other '
    'widths; the paper trains with muP.',
    'Rates fall by a cosine to a tenth, so last points are of lower rates too; the paper '
    'has a constant rate (WSD).',
  ),
)
