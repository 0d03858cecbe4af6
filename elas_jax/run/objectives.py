"""The objectives of a run in its training step: what they add to the loss."""

from typing import Any

import jax
import jax.numpy as jnp

from elas_jax.config.config import Config
from elas_jax.systems.kinds import name_of
from elas_jax.systems.objectives import OBJECTIVES
from elas_jax.systems.seen import Seen

PREFIX = 'objective/'  # of their sums, by which the log knows them


def sown(config: Config) -> tuple[str, ...]:
  """What layers must give away for them."""
  names = [name for one in config.train.objectives for name in getattr(one, 'sown', ())]
  return tuple(dict.fromkeys(names))


def added(config: Config, seen: Seen, step: jax.Array) -> tuple[Any, dict[str, jax.Array]]:
  """(what is added to the sum of the losses, the sums of the objectives by name).

  An objective is a mean over the units of a micro-batch; times their number it adds up
  over micro-batches as the losses do.
  """
  total, sums = 0.0, {}
  for one in config.train.objectives:
    value = one.loss(seen).astype(jnp.float32) * seen.sums['count']
    total += one.coefficient_at(step, config.train.steps) * value
    sums[PREFIX + name_of(OBJECTIVES, one)] = value
  return total, sums


def values(sums: dict[str, float]) -> dict[str, float]:
  """The means over the units of a step, from its sums."""
  count = max(sums['count'], 1.0)
  return {name: x / count for name, x in sums.items() if name.startswith(PREFIX)}
