"""The 1797 handwritten digits of 8 x 8 that come with scikit-learn: no download.

Pixels are in [-1, 1]. A row goes to validation by the hash of its pixels.
"""

import dataclasses
from typing import Any

from elas_jax.common.fields import inside
from elas_jax.data import rows


@dataclasses.dataclass(frozen=True)
class Digits:
  """Images of (8, 8, 1) in ten classes."""

  validation_share: float = 0.2  # of the rows, that the hash sends to validation (ours)

  def check(self, where: str, config: Any) -> None:
    inside(where, self, 'validation_share')

  def rows(self, data: Any) -> rows.PreparedRows:
    return rows.digits(self.validation_share)

  def label(self) -> str:
    return 'digits'

  def shown(self) -> str:
    return "data.source='digits'"


CASES = (Digits(), Digits(validation_share=0.5))

# No truth: these are measurements. tests/data/rows_test.py looks at their range and split.
