"""Curves that measures fit to the evaluations of a run.

They are of what metrics.jsonl has, not of checkpoints: it has the values of the same rows
at every evaluation, at no cost, while most checkpoints of a run are deleted.
"""

import dataclasses
import itertools
import pathlib

import numpy as np

from elas_jax.run.metrics import read_metrics
from elas_jax.systems.kinds import name_of
from elas_jax.systems.measures import MEASURES
from elas_jax.systems.measures.common import Curve


@dataclasses.dataclass(frozen=True)
class Fit:
  """A curve through one value of a run.

  Attributes:
    name: of the value in metrics.jsonl, of layers with the number of the layer.
    steps, values: (E,), where they are finite.
  """

  name: str
  steps: np.ndarray
  values: np.ndarray
  curve: Curve

  @property
  def r2(self) -> float:
    return self.curve.r2(self.steps, self.values)

  def described(self) -> str:
    """A line."""
    parameters = ', '.join(f'{name} {x:.4g}' for name, x in self.curve.parameters.items())
    return f'{self.name}: {parameters}; R2 {self.r2:.4f} of {len(self.steps)} evaluations'

  def as_json(self) -> dict[str, float]:
    return self.curve.parameters | {'r2': self.r2, 'evaluations': len(self.steps)}


def fits(workdir: pathlib.Path, measures: tuple) -> tuple[list[Fit], list[str]]:
  """(the curves of those measures that fit one, a line for each without enough points)."""
  fitting = [one for one in measures if hasattr(one, 'fits')]
  written = fitting and (workdir / 'metrics.jsonl').exists()
  lines = read_metrics(workdir)[1] if written else []
  found, notes = [], []
  for one in fitting:
    for value in one.fits:
      name = f'{name_of(MEASURES, one)}/{value}'
      points = _points(lines, name)
      most = max((len(steps) for steps, _ in points.values()), default=0)
      if most < one.least:
        notes.append(
          f'{name}: no curve is fitted: metrics.jsonl has it of {most} evaluations; must '
          f'be at least {one.least} (eval.measures, eval.every)'
        )
        continue
      for own, (steps, values) in points.items():
        if len(steps) >= one.least:
          found.append(Fit(own, steps, values, one.fitted(steps, values)))
  return found, notes


def _points(lines: list[dict], name: str) -> dict[str, np.ndarray]:
  """(steps, values) of each layer's own name, or of the name where there are no layers."""
  has = lambda name: any(name in line for line in lines)
  layers = (f'{name}/{layer}' for layer in itertools.count())
  names = list(itertools.takewhile(has, layers)) or [name]
  points = {}
  for own in names:
    pairs = [(x['step'], x[own]) for x in lines if x.get(own) is not None]
    points[own] = np.array(pairs, float).reshape(-1, 2).T
  return points
