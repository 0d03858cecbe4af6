"""Cosine, re-warmed after every restart_every steps, as ReLoRA has it (arXiv 2307.05695).

As in its code: step j = 0, 1, ... of the restart_warmup_steps after a restart has the
share j / restart_warmup_steps of the cosine's value at their end; the first is 0. No
restart falls into the warm-up.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
import optax

from elas_jax.common.fields import fraction
from elas_jax.systems.kinds import phase
from elas_jax.systems.schedules.common import (
  WarmUp,
  check_restarts,
  cosine_after_warmup,
  true_cosine,
)


@dataclasses.dataclass(frozen=True)
class CosineRestarts(WarmUp):
  final_fraction: float = 0.1  # of the peak, the floor
  restart_every: int = phase(5000)  # steps between restarts
  restart_warmup_steps: int = phase(100)  # linear re-warm-up after each restart

  def check(self, where: str, config: Any) -> None:
    super().check(where, config)
    fraction(where, self, 'final_fraction')
    check_restarts(where, self)

  def build(self, peak: float, steps: int) -> optax.Schedule:
    envelope = cosine_after_warmup(self, peak, steps)
    first = max(self.warmup_steps, self.restart_every)
    length = self.restart_warmup_steps

    def schedule(step):
      since = step % self.restart_every
      rise = since / max(length, 1) * envelope(step - since + length)
      return jnp.where((step >= first) & (since < length), rise, envelope(step))

    return schedule


CASES = (
  CosineRestarts(0, restart_every=6, restart_warmup_steps=3, final_fraction=0.0),
  CosineRestarts(7, 0.2, restart_every=5, restart_warmup_steps=4),  # a restart in warm-up
  CosineRestarts(10, restart_every=5, restart_warmup_steps=2),  # one at its end
  CosineRestarts(2, restart_every=6, restart_warmup_steps=0),
)


def truth(kind: CosineRestarts, peak: float, steps: int, step: int) -> float:
  number, j = divmod(step, kind.restart_every)
  if number and step >= kind.warmup_steps and j < kind.restart_warmup_steps:
    end = number * kind.restart_every + kind.restart_warmup_steps
    # Past the last step the cosine stays at its floor.
    share = true_cosine(kind, steps, min(end, steps))
    return peak * j / kind.restart_warmup_steps * share
  return peak * true_cosine(kind, steps, step)
