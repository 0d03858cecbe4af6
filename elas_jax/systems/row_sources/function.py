"""A function to fit, at points drawn from a seed; five are KAN's (arXiv 2404.19756).

data/functions.py has the formulas. Inputs are uniform in the function's cube; the targets
of the train split may have noise, those of the validation split have none.
"""

import dataclasses
import math
from typing import Any

import numpy as np

from elas_jax.data import functions, rows
from elas_jax.systems.row_sources.common import check_points


@dataclasses.dataclass(frozen=True)
class Function:
  """One value for each point."""

  name: str = 'exp_sin_square'  # of data/functions.py:FUNCTIONS (the default is ours)
  examples: int = 4000  # points of both splits together (ours)
  noise: float = 0.0  # standard deviation, of the train split
  draw_seed: int = 0  # of the points
  validation_share: float = 0.2  # of the points (ours)

  def check(self, where: str, config: Any) -> None:
    check_points(where, self, functions.FUNCTIONS)

  def rows(self, data: Any) -> rows.PreparedRows:
    return rows.of_function(functions.Points(**dataclasses.asdict(self)))

  def label(self) -> str:
    return self.name

  def shown(self) -> str:
    return f'data.source.name={self.name!r}'


CASES = tuple(Function(name, examples=40) for name in functions.FUNCTIONS) + (
  Function('product', examples=40, noise=0.5, draw_seed=1, validation_share=0.3),
)


def truth(kind: Function, x: np.ndarray) -> np.ndarray:
  """The targets (n, 1) without noise of points (n, inputs)."""
  return np.array([[_TRUTHS[kind.name](*map(float, point))] for point in x])


def _bessel(x: float) -> float:
  """J_0(20 x), by Bessel's integral; the rule of midpoints is exact for periodic ones."""
  angles = [(i + 0.5) * math.pi / 200 for i in range(200)]
  return sum(math.cos(20 * x * math.sin(angle)) for angle in angles) / 200


_TRUTHS = {
  'bessel': _bessel,
  'exp_sin_square': lambda x, y: math.exp(math.sin(math.pi * x) + y**2),
  'product': lambda x, y: x * y,
  'mean_of_sines': lambda *x: math.exp(
    sum(math.sin(math.pi * value / 2) ** 2 for value in x) / 100
  ),
  'sine_of_squares': lambda a, b, c, d: math.exp(
    (math.sin(math.pi * (a**2 + b**2)) + math.sin(math.pi * (c**2 + d**2))) / 2
  ),
  'runge': lambda x: 1 / (1 + 25 * x**2),
  'step': lambda x: float(x > 0) - float(x < 0),
}
