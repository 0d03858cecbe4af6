"""What mixers share: checks of their heads."""

from typing import Any

from elas_jax.common.errors import UserError
from elas_jax.systems.kinds import about


def check_pairs(where: str, heads: int, config: Any) -> None:
  """Refuses odd head sizes where the kind of position turns pairs of entries."""
  position, width = config.model.stack.attention_parts.position, config.model.width
  if about(position, 'pairs', default=False) and width // heads % 2:
    raise UserError(
      f'{where}.heads={heads}: model.width / {where}.heads = {width // heads} must be '
      'even, since rotary embeddings turn pairs of entries'
    )
