"""MNIST-1D (arXiv 2011.14439): 5000 sequences of 40, ten classes; drawn, no download.

Templates of the digits, padded, moved, scaled, sheared and in noise, as the authors'
package `mnist1d` draws them with its own defaults and seed; its 1000 test sequences are the
validation split. Of a network that is linear, an MLP or convolutional the paper has 32, 68
and 94 % accuracy; on MNIST all have 94 % or more.
"""

import dataclasses
from typing import Any

from elas_jax.data import rows


@dataclasses.dataclass(frozen=True)
class Mnist1d:
  """Sequences as images of (40, 1, 1), in ten classes."""

  def check(self, where: str, config: Any) -> None:
    pass

  def rows(self, data: Any) -> rows.PreparedRows:
    return rows.mnist1d()

  def label(self) -> str:
    return 'mnist1d'

  def shown(self) -> str:
    return "data.source='mnist1d'"


CASES = (Mnist1d(),)

# No truth: tests/data/rows_test.py compares the rows with the file that is published.
