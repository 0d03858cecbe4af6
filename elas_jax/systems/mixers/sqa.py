"""Attention of fewer query heads than D / K (sparse queries, SQA, arXiv 2510.01817).

The formula is in common.py: H says the head size alone, K = D / H, and there are H_q < H
query heads and J <= H_q heads of keys and values. x (B, L, D), q (B, L, H_q, K), k and v
(B, L, J, K); query maps D to H_q K and output maps H_q K to D. Products of queries and
keys are H_q / H of those of mha; the state, and with it the speed of decoding, follows J.
Checked against the authors' code (RxAI-dev/rxlm); its reversed form, J > H_q, is not here.
"""

import dataclasses
from typing import Any

from elas_jax.common.errors import UserError
from elas_jax.common.fields import at_least, divides
from elas_jax.systems.mixers import common


@dataclasses.dataclass(frozen=True)
class SQA(common.SharedHeads):
  heads: int = 16  # H, a divisor of D; the head size is K = D / H
  query_heads: int = 8  # H_q, fewer than H
  kv_heads: int = 4  # J, heads of keys and values, a divisor of H_q
  qk_norm: bool = False  # RMSNorm of each query and key, before they are rotated

  def check(self, where: str, config: Any) -> None:
    super().check(where, config)
    at_least(1, where, self, 'query_heads kv_heads')
    if self.query_heads >= self.heads:
      raise UserError(
        f'{where}.query_heads={self.query_heads}: must be below {where}.heads='
        f"{self.heads}; 'mha' and 'gqa' have as many"
      )
    divides(f'{where}.kv_heads', self.kv_heads, f'{where}.query_heads', self.query_heads)

  @property
  def queries(self) -> int:
    return self.query_heads

  @property
  def groups(self) -> int:
    return self.kv_heads


CASES = (SQA(4, 2, 1), SQA(4, 2, 2, qk_norm=True))
truth = common.truth
