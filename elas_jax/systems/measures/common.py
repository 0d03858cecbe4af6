"""What measures share: curves that are fitted to the evaluations of a run."""

import dataclasses
from collections.abc import Callable

import numpy as np


@dataclasses.dataclass(frozen=True)
class Curve:
  """A function of steps, fitted to values.

  Attributes:
    parameters: by the names that the paper has for them.
    at: steps (E,) -> values (E,).
  """

  parameters: dict[str, float]
  at: Callable[[np.ndarray], np.ndarray]

  def r2(self, steps: np.ndarray, values: np.ndarray) -> float:
    """1 - squared errors / squared deviations from the mean; NaN where these are 0."""
    errors = np.square(values - self.at(steps)).sum()
    deviations = np.square(values - values.mean()).sum()
    return float(1 - errors / deviations) if deviations > 0 else float('nan')
