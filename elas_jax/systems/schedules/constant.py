"""Warm-up, then the peak to the end."""

import dataclasses

import optax

from elas_jax.systems.schedules.common import WarmUp, join, true_rise


@dataclasses.dataclass(frozen=True)
class Constant(WarmUp):
  def build(self, peak: float, steps: int) -> optax.Schedule:
    del steps
    return join(self, peak, [(optax.constant_schedule(peak), 0)])


CASES = (Constant(warmup_steps=0), Constant(warmup_steps=5, warmup_fraction=0.2))


def truth(kind: Constant, peak: float, steps: int, step: int) -> float:
  return peak * (true_rise(kind, step) if step < kind.warmup_steps else 1.0)
