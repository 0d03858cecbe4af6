"""Two shapes in the plane to tell apart, at points drawn from a seed: spirals, or rings.

No line separates them. Points of the train split may be moved by noise, those of the
validation split are not. data/functions.py draws them.
"""

import dataclasses
from typing import Any

import numpy as np

from elas_jax.data import functions, rows
from elas_jax.systems.row_sources.common import check_points


@dataclasses.dataclass(frozen=True)
class Shape:
  """Two classes of points."""

  name: str = 'two_spirals'  # of data/functions.py:SHAPES
  examples: int = 4000  # points of both splits together (ours)
  noise: float = 0.0  # standard deviation, of the train split
  draw_seed: int = 0  # of the points
  validation_share: float = 0.2  # of the points (ours)

  def check(self, where: str, config: Any) -> None:
    check_points(where, self, functions.SHAPES)

  def rows(self, data: Any) -> rows.PreparedRows:
    return rows.of_shape(functions.Points(**dataclasses.asdict(self)))

  def label(self) -> str:
    return self.name

  def shown(self) -> str:
    return f'data.source.name={self.name!r}'


CASES = (
  *(Shape(name, examples=40) for name in functions.SHAPES),
  Shape('rings', examples=40, noise=0.01, draw_seed=1, validation_share=0.3),
)


def truth(kind: Shape, x: np.ndarray) -> np.ndarray:
  """The classes (n,) of points (n, 2) without noise."""
  radius = np.hypot(x[:, 0], x[:, 1])
  if kind.name == 'rings':
    return (radius > 0.6).astype(int)
  # A spiral's angle grows as 3 pi r; the other one is half a turn further.
  turned = np.arctan2(x[:, 1], x[:, 0]) - 3 * np.pi * radius
  return (np.cos(turned) < 0).astype(int)
