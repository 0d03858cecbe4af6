"""mean(log Z ^ 2), Z the normaliser of the softmax (PaLM, arXiv 2204.02311, section 5).

Keeps the logits from drifting: log Z is pulled towards 0. The mean is over the tokens, or
the examples of a classifier.
"""

import dataclasses
from typing import Any

import jax
import numpy as np

from elas_jax.common.errors import UserError
from elas_jax.systems.objectives.common import Objective


@dataclasses.dataclass(frozen=True)
class ZLoss(Objective):
  coefficient: float = 1e-4  # as published

  def check(self, where: str, config: Any) -> None:
    super().check(where, config)
    if not config.traits.normalised:
      raise UserError(
        f'{where}: task={config.task!r} has no normaliser; must not be among '
        'train.objectives'
      )

  def loss(self, seen: Any) -> jax.Array:
    return seen.sums['squared_log_z'] / seen.count


CASES = (ZLoss(), ZLoss(coefficient=0.1))


def truth(kind: ZLoss, seen: Any) -> float:
  log_z = np.log(np.exp(seen.outputs).sum(-1))
  return (log_z**2 * seen.weights).sum() / max(seen.weights.sum(), 1)
