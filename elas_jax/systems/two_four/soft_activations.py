"""The soft threshold of S-STE, its scale from some activations (arXiv 2409.09099).

z = scale sign(y) max(|y| - m, 0), m the second smallest magnitude of the four entries.
The scale makes z nearest to y on up to 100 tokens of a micro-batch, estimated every so
many (ops/two_four.py:estimated_scale).
"""

import dataclasses
from typing import Any, Literal

from elas_jax.common.fields import at_least
from elas_jax.ops.two_four import Recipe, estimated_scale
from elas_jax.systems.two_four import soft

# The others need the kept values as they were.
Backwards = Literal['straight_through', 'straight_through_dense']


@dataclasses.dataclass(frozen=True)
class SoftActivations:
  backward: Backwards = 'straight_through'  # see ops/two_four.py; the default is ours
  refresh: int = 10  # micro-batches between estimates of the scale; the default is ours

  def check(self, where: str, config: Any) -> None:
    at_least(1, where, self, 'refresh')

  def build(self, length: int, implementation: str) -> Recipe:
    return Recipe('soft_activations', self.backward, length, implementation)

  def given(self, module: Any, x_TxD: Any, up: Any, down: Any) -> dict[str, Any]:
    estimate = lambda: estimated_scale(x_TxD, up, None)
    return {'scale': soft.scale(module, self.refresh, estimate)}


AXES = soft.AXES
CASES = (SoftActivations(), SoftActivations('straight_through_dense', refresh=2))


def prune(kind: SoftActivations, y: Any, p: dict) -> Any:
  return soft.prune(y, p)
