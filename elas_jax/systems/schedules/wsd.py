"""Warm-up, stable, decay: the peak until decay_steps before the end (arXiv 2404.06395).

From MiniCPM. The decay has `decay_shape` and reaches final_fraction after the last step.
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
class Wsd(WarmUp):
  decay_steps: int = phase(0.1)  # length of the decay, at the end
  decay_shape: Shape = 'exponential'  # a straight line in log space
  final_fraction: float = 0.1  # of the peak, the floor; ours

  def check(self, where: str, config: Any) -> None:
    super().check(where, config)
    at_least(0, where, self, 'decay_steps')
    fraction(where, self, 'final_fraction')
    check_phases(where, self, 'warmup_steps decay_steps', config.train.steps)
    check_shape(where, self)

  def build(self, peak: float, steps: int) -> optax.Schedule:
    stable = steps - self.warmup_steps - self.decay_steps
    down = decay(peak, self.decay_steps, self.decay_shape, self.final_fraction)
    return join(self, peak, [(optax.constant_schedule(peak), stable), (down, 0)])


CASES = (
  Wsd(4, 0.2, decay_steps=7, decay_shape='linear', final_fraction=0.0),
  Wsd(0, decay_steps=20, decay_shape='cosine'),
  Wsd(4, decay_steps=7, decay_shape='exponential'),
  Wsd(4, decay_steps=0, decay_shape='exponential'),
  Wsd(13, decay_steps=7, decay_shape='one_minus_sqrt'),
)


def truth(kind: Wsd, peak: float, steps: int, step: int) -> float:
  since = step - (steps - kind.decay_steps)
  if step < kind.warmup_steps:
    return peak * true_rise(kind, step)
  return peak * (true_decay(kind, since / kind.decay_steps) if since > 0 else 1.0)
