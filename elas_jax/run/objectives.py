"""The objectives of a run in its training step: what they add to the loss."""

from typing import Any

import jax
import jax.numpy as jnp

from elas_jax.common.errors import UserError
from elas_jax.config.config import Config
from elas_jax.run.sown import not_sown
from elas_jax.systems.kinds import by_name, name_of
from elas_jax.systems.objectives import OBJECTIVES
from elas_jax.systems.objectives.common import State
from elas_jax.systems.seen import Seen

PREFIX = 'objective/'  # of their sums, by which the log knows them
COEFFICIENT = '/coefficient'


def check(config: Config) -> None:
  """Refuses objectives of values that no layer of this model gives away."""
  for one in config.train.objectives:
    if names := not_sown(config, one):
      raise UserError(
        f'train.objectives.{name_of(OBJECTIVES, one)}: no layer of this model gives away '
        f'{names[0]!r} (elas_jax/systems/sown.py); must not be among train.objectives'
      )


def added(
  config: Config, seen: Seen, step: jax.Array, kept: dict[str, State]
) -> tuple[Any, dict[str, jax.Array]]:
  """(what is added to the sum of the losses, the sums of the objectives by name).

  `kept` is what objectives keep from step to step, by name, of those that do.
  An objective is a mean over the units of a micro-batch; times their number it adds up
  over micro-batches as the losses do. So do coefficients that change, which are logged.
  """
  total, sums, count = 0.0, {}, seen.sums['count']
  for one in config.train.objectives:
    own, value = name_of(OBJECTIVES, one), one.loss(seen).astype(jnp.float32)
    coefficient = one.coefficient_at(step, config.train.steps, kept.get(own))
    name, total = PREFIX + own, total + coefficient * value * count
    sums[name] = value * count
    if not one.constant:
      sums[name + COEFFICIENT] = coefficient * count
  return total, sums


def next_kept(
  config: Config, kept: dict[str, State], sums: dict[str, jax.Array], step: jax.Array
) -> dict[str, State]:
  """What objectives keep after the step with these sums, of all micro-batches."""
  of = by_name(OBJECTIVES, config.train.objectives)
  mean = lambda name: sums[PREFIX + name] / jnp.maximum(sums['count'], 1.0)
  return {
    name: of[name].next_state(state, mean(name), step) for name, state in kept.items()
  }


def values(sums: dict[str, float]) -> dict[str, float]:
  """The means over the units of a step, and the coefficients, from its sums."""
  count = max(sums['count'], 1.0)
  return {name: x / count for name, x in sums.items() if name.startswith(PREFIX)}


def formats(line: dict[str, float]) -> dict[str, str]:
  """How a line of progress says those that it has, by name."""
  names = [name for name in line if name.startswith(f'train/{PREFIX}')]
  own = lambda name: name.removeprefix(f'train/{PREFIX}').removesuffix(COEFFICIENT)
  text = lambda name: (
    'times {:.2e}' if name.endswith(COEFFICIENT) else own(name) + ' {:.4g}'
  )
  return {name: text(name) for name in names}
