"""Another activation, the same parameters: a step of ProSparse (arXiv 2402.13516).

In the feed-forwards of all layers, or between the layers of a classifier. ProSparse makes
the SiLU of SwiGLU a ReLU, trains on, and at last makes that a ReLU with a threshold.
Activations with parameters are refused: new ones would not be trained, old ones lost.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

from elas_jax.common.errors import UserError
from elas_jax.common.limits import quoted
from elas_jax.systems.activations import ACTIVATIONS
from elas_jax.systems.converters.common import Given
from elas_jax.systems.feed_forwards import FEED_FORWARDS
from elas_jax.systems.kinds import axes, by_name, name_of, section


@dataclasses.dataclass(frozen=True)
class ReplaceActivation:
  activation: Any = section(ACTIVATIONS, 'relu')  # the new one

  equal: ClassVar[bool] = False

  def check(self, where: str, config: Any) -> None:
    _check_plain(f'{where}.activation', self.activation, 'that nothing has trained')
    if _changed(config.model, self._replaced) == config.model:
      name = name_of(ACTIVATIONS, self.activation)
      raise UserError(f'{where}.activation={name!r}: the run has no other')

  def convert(self, given: Given) -> tuple[Any, dict[str, Any]]:
    model = _changed(given.config.model, self._replaced)
    return dataclasses.replace(given.config, model=model), given.variables

  def _replaced(self, path: str, holder: Any) -> Any:
    """What has an activation, with the new one; `path` is its own, in the config."""
    if not hasattr(holder, 'activation'):
      name = name_of(FEED_FORWARDS, holder)
      having = [n for n, kind in FEED_FORWARDS.items() if hasattr(kind(), 'activation')]
      raise UserError(
        f'{path}={name!r}: must be one of {quoted(having)} to have another activation'
      )
    _check_plain(f'{path}.activation', holder.activation, 'that would be lost')
    return dataclasses.replace(holder, activation=self.activation)


def _check_plain(field: str, activation: Any, why: str) -> None:
  if axes(activation):
    plain = quoted(name for name, kind in ACTIVATIONS.items() if not axes(kind()))
    name = name_of(ACTIVATIONS, activation)
    raise UserError(f'{field}={name!r}: has parameters {why}; must be one of {plain}')


def _changed(model: Any, change: Callable[[str, Any], Any]) -> Any:
  """The section `model` with `change` of what its activations stand in."""
  if not model.stack:
    return change('model', model)
  if hasattr(model, 'architecture'):
    kind = model.architecture
    one = change('model.architecture.feed_forward', kind.feed_forward)
    return dataclasses.replace(
      model, architecture=dataclasses.replace(kind, feed_forward=one)
    )
  others = by_name(FEED_FORWARDS, model.feed_forwards).items()
  return dataclasses.replace(
    model,
    feed_forward=change('model.feed_forward', model.feed_forward),
    feed_forwards=tuple(change(f'model.feed_forwards.{n}', one) for n, one in others),
  )


CASES = (ReplaceActivation(), ReplaceActivation(ACTIVATIONS['elu']()))
# No truth: the model that comes out is compared with one of its config in
# tests/systems/converters.
