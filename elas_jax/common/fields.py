"""Checks of single fields: errors that name the field, the value and what is accepted."""

import math
from typing import Any

from elas_jax.common.errors import UserError
from elas_jax.common.limits import quoted, shown


def at_least(minimum: float, section: str, fields: Any, names: str) -> None:
  for name in names.split():
    value = getattr(fields, name)
    if value < minimum:
      raise UserError(f'{section}.{name}={value!r}: must be at least {minimum}')


def above(minimum: float, section: str, fields: Any, names: str) -> None:
  for name in names.split():
    value = getattr(fields, name)
    if value <= minimum:
      raise UserError(f'{section}.{name}={value!r}: must be above {minimum}')


def fraction(section: str, fields: Any, names: str) -> None:
  for name in names.split():
    value = getattr(fields, name)
    if not 0 <= value <= 1:
      raise UserError(f'{section}.{name}={value!r}: must be between 0 and 1')


def choice(field: str, value: str, choices: Any) -> None:
  if value not in choices:
    raise UserError(f'{field}={shown(value)}: must be one of {quoted(sorted(choices))}')


def divides(field: str, value: int, whole_name: str, whole: int) -> None:
  if whole % value:
    small = [d for d in range(1, math.isqrt(whole) + 1) if whole % d == 0]
    divisors = sorted({*small, *(whole // d for d in small)})
    few = divisors if len(divisors) <= 12 else divisors[:11] + ['...', whole]
    raise UserError(
      f'{field}={value}: must divide {whole_name}={whole}; '
      f'accepted: {", ".join(map(str, few))}'
    )


def inside(section: str, fields: Any, names: str) -> None:
  """Refuses what is no share of which both parts are something."""
  for name in names.split():
    value = getattr(fields, name)
    if not 0 < value < 1:
      raise UserError(f'{section}.{name}={value!r}: must be between 0 and 1')
