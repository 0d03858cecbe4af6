"""The two largest of each four entries, as they are (ELAS, arXiv 2605.03667).

On ties the lower index. The backward passes are described in ops/two_four.py; since kept
values are not changed, all of them can be.
"""

import dataclasses
from typing import Any, Literal

import numpy as np

from elas_jax.common.errors import UserError
from elas_jax.ops.two_four import Recipe

Backwards = Literal[
  'exact', 'straight_through', 'straight_through_dense', 'split', 'transposable'
]


@dataclasses.dataclass(frozen=True)
class Top2:
  backward: Backwards = 'exact'  # see ops/two_four.py; the default is ours

  def check(self, where: str, config: Any) -> None:
    length = config.length
    if self.backward == 'split' and length % 4:
      name = 'data.sequence_length' if config.traits.text else 'the positions of an image'
      raise UserError(
        f'{name}={length}: must be a multiple of 4 with '
        f"{where}.backward='split', which permutes the positions of a sequence and "
        'prunes them by fours'
      )

  def build(self, length: int, implementation: str) -> Recipe:
    return Recipe('top2', self.backward, length, implementation)

  def given(self, module: Any, x_TxD: Any, up: Any, down: Any) -> dict[str, Any]:
    return {}


CASES = (
  Top2(),
  Top2('straight_through'),
  Top2('straight_through_dense'),
  Top2('split'),
  Top2('transposable'),
)


def prune(kind: Top2, y: np.ndarray, p: dict) -> np.ndarray:
  groups = y.reshape(-1, 4)
  # A stable sort of the negated magnitudes puts the lower of two equal indices first.
  order = np.argsort(-np.abs(groups), axis=-1, kind='stable')
  kept = np.zeros_like(groups)
  np.put_along_axis(kept, order[:, :2], np.take_along_axis(groups, order[:, :2], -1), -1)
  return kept.reshape(y.shape)
