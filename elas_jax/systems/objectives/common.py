"""What objectives share: the coefficient and how it changes over the steps."""

import dataclasses
from typing import Any, ClassVar

import jax

from elas_jax.common.fields import at_least
from elas_jax.systems.kinds import section
from elas_jax.systems.schedules import SCHEDULES
from elas_jax.systems.schedules.constant import Constant


@dataclasses.dataclass(frozen=True)
class Objective:
  """Fields of every objective; each may have another default coefficient."""

  coefficient: float = 1.0  # the peak, of which the schedule gives shares
  schedule: Any = section(SCHEDULES, 'constant', warmup_steps=0)  # of the coefficient

  sown: ClassVar[tuple[str, ...]] = ()

  def check(self, where: str, config: Any) -> None:
    del config
    at_least(0, where, self, 'coefficient')

  def coefficient_at(self, step: jax.Array, steps: int) -> jax.Array:
    """Of the step (from 0) of a run of so many."""
    return self.coefficient * self.schedule.build(1.0, steps)(step)

  @property
  def constant(self) -> bool:
    """Whether the coefficient surely is the same in all steps."""
    return isinstance(self.schedule, Constant) and not self.schedule.warmup_steps
