"""Learning-rate schedules by name: (OptimizerConfig, steps) -> optax schedule.

All start with a linear warm-up from warmup_fraction to 1 over warmup_steps; fractions
are of the peak, `learning_rate`. The schedule's argument is the step, from 0.
"""

import math
from collections.abc import Callable

import jax.numpy as jnp
import optax

from elas_jax.config import OptimizerConfig
from elas_jax.errors import UserError

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

  The first restart_warmup_steps steps after a restart rise linearly from near 0 to the
  cosine's value (ReLoRA, arXiv 2307.05695): step k of them, from 0, has the factor
  (k + 1) / (restart_warmup_steps + 1). No restart falls into the warm-up.
  """
  if config.restart_warmup_steps >= config.restart_every:
    raise UserError(
      f'optimizer.restart_warmup_steps={config.restart_warmup_steps}: must be below '
      f'optimizer.restart_every={config.restart_every}'
    )
  envelope = cosine(config, steps)
  # The first restart that is not in the warm-up.
  first = max(-(-config.warmup_steps // config.restart_every), 1) * config.restart_every

  def schedule(step):
    since = step % config.restart_every
    factor = jnp.minimum((since + 1) / (config.restart_warmup_steps + 1), 1.0)
    return envelope(step) * jnp.where(step < first, 1.0, factor)

  return schedule


SCHEDULES: dict[str, Callable[[OptimizerConfig, int], optax.Schedule]] = {
  'constant': constant,
  'cosine': cosine,
  'wsd': wsd,
  'wsdc': wsdc,
  'cosine_restarts': cosine_restarts,
}


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
