"""Warm-up, then half a cosine down to a floor after the last step (arXiv 1608.03983).

Without the restarts of that paper: cosine_restarts has some.
"""

import dataclasses
from typing import Any

import optax

from elas_jax.common.fields import fraction
from elas_jax.systems.schedules.common import WarmUp, cosine_after_warmup, true_cosine


@dataclasses.dataclass(frozen=True)
class Cosine(WarmUp):
  final_fraction: float = 0.1  # of the peak, the floor; LLaMA's (arXiv 2302.13971)

  def check(self, where: str, config: Any) -> None:
    super().check(where, config)
    fraction(where, self, 'final_fraction')

  def build(self, peak: float, steps: int) -> optax.Schedule:
    return cosine_after_warmup(self, peak, steps)


CASES = (
  Cosine(warmup_steps=0, final_fraction=0.0),
  Cosine(warmup_steps=5, warmup_fraction=0.2, final_fraction=0.3),
)


def truth(kind: Cosine, peak: float, steps: int, step: int) -> float:
  return peak * true_cosine(kind, steps, step)
