"""What optimisers share: fields and checks of them."""

import dataclasses
from typing import Any

import numpy as np

from elas_jax.common.errors import UserError
from elas_jax.common.fields import above, at_least
from elas_jax.common.limits import check_float, shown

# Pairs of a regex on the path of a parameter, and a factor.
Rules = tuple[tuple[str, float], ...]


@dataclasses.dataclass(frozen=True)
class Common:
  """Fields of every optimiser; each may have other defaults."""

  learning_rate: float = 1e-3  # the peak, of which the schedule gives shares
  # The peak for a decoder's embedding and head, by the same schedule; 0 = learning_rate.
  embedding_rate: float = 0.0
  clip_norm: float = 0.0  # of the global norm of the gradients, 0 = off
  decay_rules: Rules = ()  # (regex on path, factor), before what kinds say; first wins

  def check(self, where: str, config: Any) -> None:
    above(0, where, self, 'learning_rate')
    at_least(0, where, self, 'embedding_rate clip_norm')
    if self.embedding_rate and not config.traits.text:
      raise UserError(
        f'{where}.embedding_rate={self.embedding_rate!r}: must be 0 for '
        f'task={config.task!r}, which has no embedding; it is for a decoder'
      )
    ratio = f'{where}.embedding_rate / {where}.learning_rate'
    check_float(ratio, self.embedding_rate / self.learning_rate)

  def check_decay(self, where: str) -> None:
    """Weight decay, alone and times each factor."""
    at_least(0, where, self, 'weight_decay')
    for regex, factor in self.decay_rules:
      product = f'{where}.weight_decay * factor of {shown(regex)} in {where}.decay_rules'
      check_float(product, self.weight_decay * factor)


def check_averages(where: str, kind: Any, names: str) -> None:
  """Factors of moving averages, as they are used: Adam divides by 1 - b^t."""
  for name in names.split():
    value = getattr(kind, name)
    if not 0 <= np.float32(value) < 1:
      raise UserError(
        f'{where}.{name}={value!r}: must be at least 0 and, in float32, below 1'
      )


def check_decoder(where: str, config: Any, name: str) -> None:
  """Refuses models whose linear maps are not those of a decoder, without biases."""
  if not getattr(config.model, 'plain_maps', False):
    raise UserError(
      f'{where}={name!r}: is for the linear maps of a decoder, not for '
      f"task={config.task!r}; 'adamw' and 'sgd' are for both"
    )
