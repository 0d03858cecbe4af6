"""Learning-rate schedules by name: (OptimizerConfig, steps) -> optax schedule.

All start with a linear warm-up from warmup_fraction over warmup_steps, to 1 but where
said; fractions are of the peak, `learning_rate`. The schedule's argument is the step,
from 0.
"""

import math
from collections.abc import Callable

import jax.numpy as jnp
import optax

from elas_jax.common.errors import UserError
from elas_jax.config.config import OptimizerConfig

# How far down a decay is, from 0 to 1, after the fraction u of its steps. The exponential
# shape is a straight line in log space instead and is built in _decay.
DECAYS = {
  'linear': lambda u: u,
  'cosine': lambda u: 0.5 * (1 - jnp.cos(math.pi * u)),
  'one_minus_sqrt': jnp.sqrt,  # arXiv 2405.18392
}


def constant(config: OptimizerConfig, steps: int) -> optax.Schedule:
  """Warm-up, then the peak."""
  _fits(config, steps)
  return _join(config, [(optax.constant_schedule(config.learning_rate), 0)])


def cosine(config: OptimizerConfig, steps: int) -> optax.Schedule:
  """Warm-up, then half a cosine down, to reach final_fraction after the last step."""
  _fits(config, steps)
  length = steps - config.warmup_steps
  decay = optax.cosine_decay_schedule(
    config.learning_rate, max(length, 1), config.final_fraction
  )
  return _join(config, [(decay, 0)])


def wsd(config: OptimizerConfig, steps: int) -> optax.Schedule:
  """Warm-up, stable, decay: the peak until decay_steps before the end, then down.

  From MiniCPM (arXiv 2404.06395). The decay has `decay_shape` and reaches
  final_fraction after the last step.
  """
  _fits(config, steps, 'decay_steps')
  stable = steps - config.warmup_steps - config.decay_steps
  peak = optax.constant_schedule(config.learning_rate)
  return _join(config, [(peak, stable), (_decay(config), 0)])


def wsdc(config: OptimizerConfig, steps: int) -> optax.Schedule:
  """Warm-up, stable, decay, constant: as wsd, then constant_steps at the floor.

  PLM (arXiv 2503.12167) names these four phases; its exact formula is not published,
  so the shape of the decay is a choice: `decay_shape`.
  """
  _fits(config, steps, 'decay_steps', 'constant_steps')
  used = config.warmup_steps + config.decay_steps + config.constant_steps
  peak = optax.constant_schedule(config.learning_rate)
  floor = optax.constant_schedule(config.learning_rate * config.final_fraction)
  decay = (_decay(config), config.decay_steps)
  return _join(config, [(peak, steps - used), decay, (floor, 0)])


def cosine_restarts(config: OptimizerConfig, steps: int) -> optax.Schedule:
  """The cosine schedule, re-warmed after every restart_every steps.

  As in ReLoRA's code (arXiv 2307.05695): step j = 0, 1, ... of the restart_warmup_steps
  after a restart has the share j / restart_warmup_steps of the cosine's value at their
  end; the first is 0. No restart falls into the warm-up.
  """
  _check_restarts(config)
  envelope = cosine(config, steps)
  first, length = (
    max(config.warmup_steps, config.restart_every),
    config.restart_warmup_steps,
  )

  def schedule(step):
    since = step % config.restart_every
    rise = since / max(length, 1) * envelope(step - since + length)
    return jnp.where((step >= first) & (since < length), rise, envelope(step))

  return schedule


def displaced_cosine_restarts(config: OptimizerConfig, steps: int) -> optax.Schedule:
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
  _check_restarts(config)
  _fits(config, steps, 'decay_steps')
  w, length = config.warmup_steps, config.restart_warmup_steps
  period, displacement = max(steps - w, 1), steps - w - config.decay_steps
  start, floor = config.warmup_fraction, config.final_fraction
  cosine_of = lambda t: 0.5 * (1 + jnp.cos(math.pi * t / period))
  top = cosine_of(displacement)

  def schedule(step):
    in_warmup = step < w
    displaced = jnp.where(in_warmup, step, step - displacement)

    def share(displaced):
      rising = start + (top - start) * displaced / max(w, 1)
      return jnp.where(in_warmup, rising, floor + (1 - floor) * cosine_of(displaced - w))

    since = displaced % config.restart_every
    restart = displaced - since
    rise = 1e-6 + (share(restart) - 1e-6) * since / max(length, 1)
    restarted = (restart > 0) & (since < length)
    return config.learning_rate * jnp.where(restarted, rise, share(displaced))

  return schedule


SCHEDULES: dict[str, Callable[[OptimizerConfig, int], optax.Schedule]] = {
  'constant': constant,
  'cosine': cosine,
  'wsd': wsd,
  'wsdc': wsdc,
  'cosine_restarts': cosine_restarts,
  'displaced_cosine_restarts': displaced_cosine_restarts,
}


def _check_restarts(config: OptimizerConfig) -> None:
  if config.restart_warmup_steps >= config.restart_every:
    raise UserError(
      f'optimizer.restart_warmup_steps={config.restart_warmup_steps}: must be below '
      f'optimizer.restart_every={config.restart_every}'
    )


def _fits(config: OptimizerConfig, steps: int, *phases: str) -> None:
  """Refuses phases that are longer than the run."""
  names = ('warmup_steps', *phases)
  total = sum(getattr(config, name) for name in names)
  if total > steps:
    shown = ' + '.join(f'optimizer.{name}={getattr(config, name)}' for name in names)
    raise UserError(f'{shown}: must be at most train.steps={steps}')


def _decay(config: OptimizerConfig) -> optax.Schedule:
  peak, floor = config.learning_rate, config.learning_rate * config.final_fraction
  length = max(config.decay_steps, 1)
  if config.decay_shape == 'exponential':
    if not floor:
      raise UserError(
        "optimizer.final_fraction=0.0: must be above 0 for decay_shape='exponential'"
      )
    return optax.exponential_decay(peak, length, floor / peak, end_value=floor)
  shape = DECAYS[config.decay_shape]
  return lambda step: peak + (floor - peak) * shape(jnp.clip(step / length, 0.0, 1.0))


def _join(config: OptimizerConfig, phases: list) -> optax.Schedule:
  """Warm-up and then the phases, pairs of (schedule, length); the last has no end."""
  start = config.learning_rate * config.warmup_fraction
  warmup = optax.linear_schedule(start, config.learning_rate, max(config.warmup_steps, 1))
  boundaries = [config.warmup_steps]
  for _, length in phases[:-1]:
    boundaries.append(boundaries[-1] + length)
  return optax.join_schedules([warmup, *(phase for phase, _ in phases)], boundaries)
