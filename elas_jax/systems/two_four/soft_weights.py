"""The soft threshold of S-STE, its scale from projected activations (arXiv 2409.09099).

z = scale sign(y) max(|y| - m, 0), m the second smallest magnitude of the four entries.
The scale is estimated once, in the first pruned step, from what the first factor of the
down map makes of z and of y: as the authors of ELAS carried the published one over, which
is of weights (ops/two_four.py:estimated_scale).
"""

import dataclasses
from typing import Any, Literal

from elas_jax.ops.two_four import Recipe, estimated_scale
from elas_jax.systems.two_four import soft

ONCE = 2**31 - 1  # micro-batches

# The others need the kept values as they were.
Backwards = Literal['straight_through', 'straight_through_dense']


@dataclasses.dataclass(frozen=True)
class SoftWeights:
  backward: Backwards = 'straight_through'  # see ops/two_four.py; the default is ours

  def check(self, where: str, config: Any) -> None:
    """Nothing can be wrong."""

  def build(self, length: int, implementation: str) -> Recipe:
    return Recipe('soft_weights', self.backward, length, implementation)

  def given(self, module: Any, x_TxD: Any, up: Any, down: Any) -> dict[str, Any]:
    estimate = lambda: estimated_scale(x_TxD, up, down[0])
    return {'scale': soft.scale(module, ONCE, estimate)}


AXES = soft.AXES
CASES = (SoftWeights(), SoftWeights('straight_through_dense'))


def prune(kind: SoftWeights, y: Any, p: dict) -> Any:
  return soft.prune(y, p)
