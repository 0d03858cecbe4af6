"""Attention of H heads that all share one key and value (MQA, arXiv 1911.02150).

The formula is in common.py, with H_q = H and J = 1: x (B, L, D), q (B, L, H, K), k and v
(B, L, 1, K), K = D / H.
"""

import dataclasses

from elas_jax.systems.mixers import common


@dataclasses.dataclass(frozen=True)
class MQA(common.SharedHeads):
  heads: int = 8  # H, a divisor of D; the head size is K = D / H
  qk_norm: bool = False  # RMSNorm of each query and key, before they are rotated

  groups = 1

  @property
  def queries(self) -> int:
    return self.heads


CASES = (MQA(heads=4), MQA(heads=2, qk_norm=True))
truth = common.truth
