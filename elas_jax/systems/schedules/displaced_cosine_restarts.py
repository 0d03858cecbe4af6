"""LORO's schedule (ICLR 2025): a cosine displaced to later steps, with restarts.

For steps s of N, a warm-up of w and the displacement a = N - w - decay_steps (published
as lr_adjust_steps = -a; a = w at all sizes but one), as shares of the peak

  s < w    f0 + (c(a) - f0) s / w                with f0 = warmup_fraction
  s >= w   f1 + (1 - f1) c(s - a - w)            with f1 = final_fraction
           c(t) = 0.5 (1 + cos(pi t / (N - w)))

so that the peak is at w + a and the decay takes the decay_steps after it. The steps
j < restart_warmup_steps after a restart rise from 1e-6 by shares of j /
restart_warmup_steps to the value of the restart itself. Restarts are at the multiples
of restart_every in the warm-up, and after it where s - a is one; none is at 0, in s or
in s - a.
"""

import dataclasses
import math
from typing import Any

import jax.numpy as jnp
import optax

from elas_jax.common.errors import UserError
from elas_jax.common.fields import fraction
from elas_jax.systems.kinds import phase
from elas_jax.systems.schedules.common import WarmUp, check_phases, check_restarts


@dataclasses.dataclass(frozen=True)
class DisplacedCosineRestarts(WarmUp):
  warmup_steps: int = phase(0.1)  # length of the linear warm-up
  warmup_fraction: float = 0.1  # of the peak, where the warm-up starts
  decay_steps: int = phase(0.8)  # from the peak to the end
  final_fraction: float = 0.1  # of the peak, the floor
  restart_every: int = phase(500)  # steps between restarts, those between exact steps
  restart_warmup_steps: int = phase(5)  # linear re-warm-up after each restart

  def check(self, where: str, config: Any) -> None:
    super().check(where, config)
    if self.decay_steps < 0:  # as where a config file has what the warm-up leaves
      raise UserError(
        f'{where}.decay_steps={self.decay_steps}: must be at least 0; '
        f'{where}.warmup_steps={self.warmup_steps} of train.steps={config.train.steps} may '
        'leave too few'
      )
    fraction(where, self, 'final_fraction')
    check_restarts(where, self)
    check_phases(where, self, 'warmup_steps decay_steps', config.train.steps)

  def build(self, peak: float, steps: int) -> optax.Schedule:
    w, length = self.warmup_steps, self.restart_warmup_steps
    period, displacement = max(steps - w, 1), steps - w - self.decay_steps
    start, floor = self.warmup_fraction, self.final_fraction
    cosine_of = lambda t: 0.5 * (1 + jnp.cos(math.pi * t / period))
    top = cosine_of(displacement)

    def schedule(step):
      in_warmup = step < w
      displaced = jnp.where(in_warmup, step, step - displacement)

      def share(displaced):
        rising = start + (top - start) * displaced / max(w, 1)
        falling = floor + (1 - floor) * cosine_of(displaced - w)
        return jnp.where(in_warmup, rising, falling)

      since = displaced % self.restart_every
      restart = displaced - since
      rise = 1e-6 + (share(restart) - 1e-6) * since / max(length, 1)
      restarted = (restart > 0) & (since < length)
      return peak * jnp.where(restarted, rise, share(displaced))

    return schedule


CASES = (
  DisplacedCosineRestarts(2, decay_steps=16, restart_every=5, restart_warmup_steps=2),
  # Restarts in the warm-up, and where s - a is negative.
  DisplacedCosineRestarts(
    7, 0.2, decay_steps=3, final_fraction=0.0, restart_every=3, restart_warmup_steps=2
  ),
  # No displacement.
  DisplacedCosineRestarts(4, decay_steps=16, restart_every=5, restart_warmup_steps=0),
  DisplacedCosineRestarts(0, decay_steps=12, restart_every=6, restart_warmup_steps=3),
)


def truth(kind: DisplacedCosineRestarts, peak: float, steps: int, step: int) -> float:
  w, floor = kind.warmup_steps, kind.final_fraction
  later = steps - w - kind.decay_steps
  cosine = lambda t: 0.5 * (1 + math.cos(math.pi * t / (steps - w)))
  at = step if step < w else step - later

  def share(s):
    if step < w:
      return kind.warmup_fraction + (cosine(later) - kind.warmup_fraction) * s / w
    return floor + (1 - floor) * cosine(s - w)

  number, j = divmod(at, kind.restart_every)
  if number > 0 and j < kind.restart_warmup_steps:
    restart = share(number * kind.restart_every)
    return peak * (1e-6 + (restart - 1e-6) * j / kind.restart_warmup_steps)
  return peak * share(at)
