"""Attention of H heads, each with keys and values of its own (arXiv 1706.03762).

The formula is in common.py, with J = H_q = H: x (B, L, D), q, k and v (B, L, H, K),
K = D / H.
"""

import dataclasses

from elas_jax.systems.mixers import common


@dataclasses.dataclass(frozen=True)
class MHA(common.SharedHeads):
  heads: int = 4  # H, a divisor of D; the head size is K = D / H. The default is ours
  qk_norm: bool = False  # RMSNorm of each query and key, before they are rotated

  @property
  def queries(self) -> int:
    return self.heads

  @property
  def groups(self) -> int:
    return self.heads


CASES = (MHA(heads=2), MHA(heads=2, qk_norm=True))
truth = common.truth
