"""What kinds that are drawn from a seed share."""

from collections.abc import Mapping
from typing import Any

from elas_jax.common.errors import UserError
from elas_jax.common.fields import at_least, choice, inside
from elas_jax.common.limits import LARGEST, check_array


def check_points(where: str, source: Any, known: Mapping[str, Any]) -> None:
  """Refuses a source whose points cannot be drawn: `known` has the names."""
  choice(f'{where}.name', source.name, known)
  at_least(2, where, source, 'examples')
  at_least(0, where, source, 'noise')
  if source.draw_seed < 0:
    most = LARGEST['data.source.draw_seed']
    raise UserError(f'{where}.draw_seed={source.draw_seed}: must be between 0 and {most}')
  inside(where, source, 'validation_share')
  inputs = getattr(known[source.name], 'inputs', 2)
  check_array((f'{where}.examples', source.examples), ('the inputs', inputs))
