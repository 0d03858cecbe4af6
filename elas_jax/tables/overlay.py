"""Curves of several sides in one picture: the loss of training thin, of validation bold."""

import pathlib
import statistics
from collections.abc import Sequence
from typing import Any

from elas_jax.run.plots import pyplot
from elas_jax.tables.sides import Side

# Of curves in the record: name, width, marker.
STYLES = (('eval/loss', 2.4, 'o'), ('train/loss', 0.8, None))
SPAN = 50  # largest / smallest loss from which on the axis is logarithmic

Points = list[tuple[float, float]]


def mean_curve(curves: Sequence[Sequence[Sequence[float]]]) -> Points:
  """(step, mean) at the steps that all of these curves have."""
  by_step = [dict(curve) for curve in curves]
  steps = set(by_step[0]).intersection(*by_step[1:]) if by_step else ()
  return [(s, statistics.mean(of[s] for of in by_step)) for s in sorted(steps)]


def overlay(path: pathlib.Path, sides: Sequence[Side], scale: str = '') -> bool:
  """Writes the picture as PNG; False, and nothing, where no side has a curve.

  Each seed is pale, their mean is drawn in full.

  Raises:
    OSError: it cannot be written.
  """
  if not any(run.curve for side in sides for run in side.runs.values()):
    return False
  plt = pyplot()
  figure, axes = plt.subplots(figsize=(8, 5), layout='constrained')
  for number, side in enumerate(sides):
    _draw(axes, side, f'C{number}')
  values = [y for line in axes.lines for y in line.get_ydata()]
  if min(values) > 0 and max(values) / min(values) > SPAN:
    axes.set_yscale('log')
  axes.set(
    xlabel='step',
    ylabel='loss: training thin, validation bold',
    title=f'Scale: {scale}' if scale else None,
  )
  axes.grid(alpha=0.3)
  axes.legend()
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(f'{path.stem}.tmp.png')
  try:
    figure.savefig(temporary, dpi=130)
  finally:
    plt.close(figure)
  temporary.replace(path)
  return True


def _draw(axes: Any, side: Side, color: str) -> None:
  label = f'{side.label}, {len(side.runs)} seed{"s" if len(side.runs) != 1 else ""}'
  for name, width, marker in STYLES:
    curves = [run.curve[name] for run in side.runs.values() if run.curve.get(name)]
    if len(curves) > 1:
      for curve in curves:
        axes.plot(*zip(*curve), color=color, linewidth=width / 3, alpha=0.35)
    if points := mean_curve(curves):
      shown = {'marker': marker, 'markersize': 4, 'label': label}
      axes.plot(*zip(*points), color=color, linewidth=width, **shown)
      label = None  # once in the legend
