"""Attention of H heads in groups that share J keys and values (GQA, arXiv 2305.13245).

The formula is in common.py, with H_q = H: x (B, L, D), q (B, L, H, K), k and v
(B, L, J, K), K = D / H. Keys and values, and with them the state, are J / H of mha's.
"""

import dataclasses
from typing import Any

from elas_jax.common.fields import at_least, divides
from elas_jax.systems.mixers import common


@dataclasses.dataclass(frozen=True)
class GQA(common.SharedHeads):
  # H, a divisor of D; K = D / H. 16 and 4 are of SQA's comparison, the paper's 64 and 8.
  heads: int = 16
  kv_heads: int = 4  # J, heads of keys and values, a divisor of H
  qk_norm: bool = False  # RMSNorm of each query and key, before they are rotated

  def check(self, where: str, config: Any) -> None:
    super().check(where, config)
    at_least(1, where, self, 'kv_heads')
    divides(f'{where}.kv_heads', self.kv_heads, f'{where}.heads', self.heads)

  @property
  def queries(self) -> int:
    return self.heads

  @property
  def groups(self) -> int:
    return self.kv_heads


CASES = (GQA(heads=4, kv_heads=2), GQA(heads=2, kv_heads=1, qk_norm=True))
truth = common.truth
