"""Warm-up, stable, decay, constant: as wsd, then steps at the floor (arXiv 2503.12167).

PLM names these four phases; its exact formula is not published, so the shape of the decay
is a choice: `decay_shape`.
"""

import dataclasses
from typing import Any

import optax

from elas_jax.common.fields import at_least, fraction
from elas_jax.systems.kinds import phase
from elas_jax.systems.schedules.common import (
  Shape,
  WarmUp,
  check_phases,
  check_shape,
  decay,
  join,
  true_decay,
  true_rise,
)


@dataclasses.dataclass(frozen=True)
class Wsdc(WarmUp):
  decay_steps: int = phase(0.2)  # length of the decay; ours, as all that follows
  decay_shape: Shape = 'linear'  # of the way down to the floor
  constant_steps: int = phase(0.1)  # at the floor, at the end
  final_fraction: float = 0.1  # of the peak, the floor

  def check(self, where: str, config: Any) -> None:
    super().check(where, config)
    at_least(0, where, self, 'decay_steps constant_steps')
    fraction(where, self, 'final_fraction')
    phases = 'warmup_steps decay_steps constant_steps'
    check_phases(where, self, phases, config.train.steps)
    check_shape(where, self)

  def build(self, peak: float, steps: int) -> optax.Schedule:
    used = self.warmup_steps + self.decay_steps + self.constant_steps
    top = optax.constant_schedule(peak)
    floor = optax.constant_schedule(peak * self.final_fraction)
    down = decay(peak, self.decay_steps, self.decay_shape, self.final_fraction)
    return join(self, peak, [(top, steps - used), (down, self.decay_steps), (floor, 0)])


CASES = (
  Wsdc(4, 0.2, decay_steps=7, decay_shape='linear', constant_steps=3, final_fraction=0.0),
  Wsdc(0, decay_steps=15, decay_shape='cosine', constant_steps=5),
  Wsdc(4, decay_steps=7, decay_shape='exponential', constant_steps=0),
  Wsdc(4, decay_steps=0, decay_shape='exponential', constant_steps=6),
  Wsdc(4, decay_steps=7, decay_shape='one_minus_sqrt', constant_steps=6),
)


def truth(kind: Wsdc, peak: float, steps: int, step: int) -> float:
  left = steps - kind.constant_steps - step  # of the decay, if it has begun
  if step < kind.warmup_steps:
    return peak * true_rise(kind, step)
  if left <= 0:
    return peak * kind.final_fraction
  if left >= kind.decay_steps:
    return peak
  return peak * true_decay(kind, 1 - left / kind.decay_steps)
