"""Attention of H / 4 query heads to one key and value (xSMQA, arXiv 2510.01817).

The formula is in common.py, with H_q = H / 4 and J = 1, as in the paper's table 1, else as
sqa: a quarter of mha's products of queries and keys, and 1 / H of its state.
"""

import dataclasses
from typing import Any

from elas_jax.systems.mixers import common


@dataclasses.dataclass(frozen=True)
class XSMQA(common.SharedHeads):
  heads: int = 16  # H, a multiple of 4, a divisor of D; the head size is K = D / H
  qk_norm: bool = False  # RMSNorm of each query and key, before they are rotated

  groups = 1

  def check(self, where: str, config: Any) -> None:
    super().check(where, config)
    common.check_share(where, self.heads, 4)

  @property
  def queries(self) -> int:
    return self.heads // 4


CASES = (XSMQA(heads=4), XSMQA(heads=4, qk_norm=True))
truth = common.truth
