"""What objectives share: the coefficient, how it changes, and what they keep for that."""

import dataclasses
from typing import Any, ClassVar

import jax

from elas_jax.common.fields import at_least
from elas_jax.systems.kinds import section
from elas_jax.systems.schedules import SCHEDULES
from elas_jax.systems.schedules.constant import Constant

State = dict[str, jax.Array]  # name -> a scalar in float32


@dataclasses.dataclass(frozen=True)
class Objective:
  """Fields of every objective; each may have another default coefficient."""

  coefficient: float = 1.0  # the peak, of which the schedule gives shares
  schedule: Any = section(SCHEDULES, 'constant', warmup_steps=0)  # of the coefficient

  sown: ClassVar[tuple[str, ...]] = ()

  def check(self, where: str, config: Any) -> None:
    del config
    at_least(0, where, self, 'coefficient')

  def coefficient_at(
    self, step: jax.Array, steps: int, state: State | None = None
  ) -> jax.Array:
    """Of the step (from 0) of a run of so many, with what is kept from those before it."""
    del state
    return self.coefficient * self.schedule.build(1.0, steps)(step)

  def state(self) -> State:
    """What is kept from step to step, at the start of a run; most keep nothing."""
    return {}

  def next_state(self, state: State, value: jax.Array, step: jax.Array) -> State:
    """After a step (from 0) in which the mean over all units of the batch was `value`."""
    del value, step
    return state

  @property
  def constant(self) -> bool:
    """Whether the coefficient surely is the same in all steps."""
    level = isinstance(self.schedule, Constant) and not self.schedule.warmup_steps
    return level and not self.state()


def by_rows(seen: Any, name: str) -> list[jax.Array]:
  """Of each module that sowed (T, E), or (N, T, E) of stacked layers: (N, B, L, E)."""
  rows = len(seen.weights)
  return [
    x.reshape(-1, rows, x.shape[-2] // rows, x.shape[-1]) for x in seen.sown[name].values()
  ]
