"""What schedules share: the warm-up, ways down, and checks of phases.

All start with a linear warm-up from warmup_fraction over warmup_steps, to 1 but where
said; fractions are of the peak, the optimiser's learning_rate. A schedule's argument is
the step, from 0.
"""

import dataclasses
import math
from typing import Any, Literal

import jax.numpy as jnp
import optax

from elas_jax.common.errors import UserError
from elas_jax.common.fields import at_least, fraction
from elas_jax.systems.kinds import phase

# How far down a decay is, from 0 to 1, after the fraction u of its steps. The exponential
# shape is a straight line in log space instead and is built in `decay`.
DECAYS = {
  'linear': lambda u: u,
  'cosine': lambda u: 0.5 * (1 - jnp.cos(math.pi * u)),
  'one_minus_sqrt': jnp.sqrt,  # arXiv 2405.18392
}
Shape = Literal['linear', 'cosine', 'exponential', 'one_minus_sqrt']


@dataclasses.dataclass(frozen=True)
class WarmUp:
  """Fields of every schedule."""

  warmup_steps: int = phase(0.05)  # length of the linear warm-up; the share is ours
  warmup_fraction: float = 0.0  # of the peak, where the warm-up starts

  def check(self, where: str, config: Any) -> None:
    at_least(0, where, self, 'warmup_steps')
    fraction(where, self, 'warmup_fraction')
    check_phases(where, self, 'warmup_steps', config.train.steps)


def check_phases(where: str, kind: Any, names: str, steps: int) -> None:
  """Refuses phases that together are longer than the run."""
  total = sum(getattr(kind, name) for name in names.split())
  if total > steps:
    shown = ' + '.join(f'{where}.{name}={getattr(kind, name)}' for name in names.split())
    raise UserError(f'{shown}: must be at most train.steps={steps}')


def check_shape(where: str, kind: Any) -> None:
  if kind.decay_shape == 'exponential' and not kind.final_fraction:
    raise UserError(
      f"{where}.final_fraction=0.0: must be above 0 for decay_shape='exponential'"
    )


def check_restarts(where: str, kind: Any) -> None:
  at_least(1, where, kind, 'restart_every')
  at_least(0, where, kind, 'restart_warmup_steps')
  if kind.restart_warmup_steps >= kind.restart_every:
    raise UserError(
      f'{where}.restart_warmup_steps={kind.restart_warmup_steps}: must be below '
      f'{where}.restart_every={kind.restart_every}'
    )


def join(kind: WarmUp, peak: float, phases: list) -> optax.Schedule:
  """Warm-up and then the phases, pairs of (schedule, length); the last has no end."""
  start = peak * kind.warmup_fraction
  warmup = optax.linear_schedule(start, peak, max(kind.warmup_steps, 1))
  boundaries = [kind.warmup_steps]
  for _, length in phases[:-1]:
    boundaries.append(boundaries[-1] + length)
  return optax.join_schedules([warmup, *(schedule for schedule, _ in phases)], boundaries)


def cosine_after_warmup(kind: Any, peak: float, steps: int) -> optax.Schedule:
  """Warm-up, then half a cosine down, to reach final_fraction after the last step."""
  length = max(steps - kind.warmup_steps, 1)
  cosine = optax.cosine_decay_schedule(peak, length, kind.final_fraction)
  return join(kind, peak, [(cosine, 0)])


def decay(peak: float, steps: int, shape: str, final_fraction: float) -> optax.Schedule:
  """From the peak to final_fraction of it, in so many steps."""
  floor, length = peak * final_fraction, max(steps, 1)
  if shape == 'exponential':
    return optax.exponential_decay(peak, length, floor / peak, end_value=floor)
  down = DECAYS[shape]
  return lambda step: peak + (floor - peak) * down(jnp.clip(step / length, 0.0, 1.0))


# Shares of the peak in plain Python, for the truths of schedules.


def true_rise(kind: WarmUp, step: int) -> float:
  return kind.warmup_fraction + (1 - kind.warmup_fraction) * step / kind.warmup_steps


def true_cosine(kind: Any, steps: int, step: int) -> float:
  if step < kind.warmup_steps:
    return true_rise(kind, step)
  turn = math.cos(math.pi * (step - kind.warmup_steps) / (steps - kind.warmup_steps))
  return kind.final_fraction + (1 - kind.final_fraction) * 0.5 * (1 + turn)


def true_decay(kind: Any, u: float) -> float:
  """After the fraction u of the decay."""
  floor = kind.final_fraction
  return {
    'linear': lambda: 1 - (1 - floor) * u,
    'cosine': lambda: floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * u)),
    'one_minus_sqrt': lambda: floor + (1 - floor) * (1 - math.sqrt(u)),
    'exponential': lambda: math.exp(u * math.log(floor)),
  }[kind.decay_shape]()
