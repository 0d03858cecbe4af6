"""Two of each four drawn at random, without bias and of least variance (arXiv 2203.10991).

A kept entry is divided by its probability to be kept, so that the mean over draws is the
unpruned activation; see pallas_kernels/two_four/rules.py.
"""

import dataclasses
from typing import Any, Literal

from elas_jax.ops.two_four import Recipe

# The others need the kept values as they were.
Backwards = Literal['straight_through', 'straight_through_dense']


@dataclasses.dataclass(frozen=True)
class MVUE:
  backward: Backwards = 'straight_through'  # see ops/two_four.py; the default is ours

  def check(self, where: str, config: Any) -> None:
    """Nothing can be wrong."""

  def build(self, length: int, implementation: str) -> Recipe:
    return Recipe('mvue', self.backward, length, implementation)

  def given(self, module: Any, x_TxD: Any, up: Any, down: Any) -> dict[str, Any]:
    return {'key': module.make_rng('noise')}


CASES = (MVUE(), MVUE('straight_through_dense'))
# No truth (`prune`): which entries are kept is drawn from JAX's own stream.
