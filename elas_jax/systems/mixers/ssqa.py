"""Attention of H / 2 heads of size D / H (symmetric SQA, sSQA, arXiv 2510.01817).

The formula is in common.py, with H_q = J = H / 2, else as sqa: half of mha's products of
queries and keys, and half of its state.
"""

import dataclasses
from typing import Any

from elas_jax.systems.mixers import common


@dataclasses.dataclass(frozen=True)
class SSQA(common.SharedHeads):
  heads: int = 16  # H, even, a divisor of D; the head size is K = D / H
  qk_norm: bool = False  # RMSNorm of each query and key, before they are rotated

  def check(self, where: str, config: Any) -> None:
    super().check(where, config)
    common.check_share(where, self.heads, 2)

  @property
  def queries(self) -> int:
    return self.heads // 2

  @property
  def groups(self) -> int:
    return self.heads // 2


CASES = (SSQA(heads=4), SSQA(heads=2, qk_norm=True))
truth = common.truth
