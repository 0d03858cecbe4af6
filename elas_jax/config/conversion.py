"""What `convert` is told: one converter with its fields, by the grammar of configs."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from elas_jax.common.errors import UserError
from elas_jax.common.limits import shown
from elas_jax.config import schema
from elas_jax.config.overrides import Root, apply
from elas_jax.systems.converters import CONVERTERS
from elas_jax.systems.kinds import section


@dataclasses.dataclass(frozen=True)
class Conversion:
  """A converter; its fields are --converter.FIELD=VALUE."""

  converter: Any = section(CONVERTERS, 'merge')  # what the model is made into


CONVERSION = Root(Conversion, '--', '--converter.FIELD=VALUE', 'the flags of convert')


def told(flags: Sequence[str]) -> ConfigDict:
  """The tree of flags '--converter=NAME' and '--converter.FIELD=VALUE', in any order.

  Raises:
    UserError: no such converter or field, or not a value of its type.
  """
  for flag in flags:
    if not flag.startswith('--converter'):
      raise UserError(
        f'{shown(flag)}: no such flag; a field is set like {CONVERSION.example}, and '
        '--help shows the flags'
      )
  tree = ConfigDict()
  apply(tree, flags, CONVERSION)
  return tree


def converter_of(tree: ConfigDict, steps: int) -> Any:
  """The converter that a tree names; shares of steps are of so many."""
  return schema.build(Conversion, tree.to_dict(), {}, steps).converter
