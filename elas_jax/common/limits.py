"""The largest and smallest numbers that a field may have, and values as errors show them.

Integers that are not in `LARGEST` are below 2^31, since steps, sizes and ids become int32.
Floats are used in float32: there they must be finite, and zero only if they are.
"""

import math
import reprlib
from typing import Any

from elas_jax.common.errors import UserError

LARGEST_INTEGER = 2**31 - 1
LARGEST_FLOAT = float.fromhex('0x1.fffffep127')
SMALLEST_FLOAT = 2.0**-126  # below it processors take numbers for zero
# Where the limit is another one.
LARGEST = {
  'seed': 2**32 - 1,
  'data.source.draw_seed': 2**32 - 1,
  'eval.units': 2**63 - 1,  # counted on the host
  'data.sequence_length': 2**22,  # attention compares each token with every other one
  # Their squares are finite in float32.
  'data.source.noise': 1e18,
  'model.linear.grid_min': 1e18,
  'model.linear.grid_max': 1e18,
  # Each of these is a part of the program that is compiled, one after the other.
  'model.depth': 1000,
  'model.unroll': 1000,
  'model.linear.order': 100,
  # A start of curves is fitted with a matrix of this height and width.
  'model.linear.grid': 10_000,
  # Several times as wide within a block.
  'model.width': 2**28,
  'model.feed_forward_width': 2**28,
  # Each is a thread, a process or a batch in memory.
  'data.read_threads': 4096,
  'data.processes': 4096,
  'data.prefetch': 4096,
}
# Of one array: four bytes each are more than the memory of any machine.
LARGEST_ARRAY = 2**53


class _Shown(reprlib.Repr):
  def __init__(self):
    super().__init__(maxstring=100, maxother=100, maxlong=40, maxtuple=8, maxlist=8)

  def repr_int(self, value: int, level: int) -> str:
    # Python refuses to write integers of more than 4300 digits.
    if value.bit_length() > 4096:
      return f'<an integer of {int(value.bit_length() * math.log10(2)) + 1} digits>'
    return super().repr_int(value, level)


shown = _Shown().repr  # repr for messages: of anything, and short


def quoted(names: Any) -> str:
  return ', '.join(repr(name) for name in names)


def cut(text: str, most: int = 200) -> str:
  """The text, or its beginning and how long it is."""
  return text if len(text) <= most else f'{text[:most]}... ({len(text)} characters)'


def check_integer(field: str, value: int) -> None:
  """Refuses what is above the field's limit, or as far below zero as an int32 reaches."""
  most, least = LARGEST.get(field, LARGEST_INTEGER), -LARGEST_INTEGER
  if value > most:
    raise UserError(f'{field}={shown(value)}: must be at most {most}')
  if value < least:
    raise UserError(f'{field}={shown(value)}: must be at least {least}')


def check_float(field: str, value: float) -> None:
  """Refuses NaN, and what is infinite, above the field's limit or lost in float32."""
  most = LARGEST.get(field, LARGEST_FLOAT)
  if not abs(value) <= most:
    limit = f'at most {most:.7g} in size' + (' (float32)' if most == LARGEST_FLOAT else '')
    raise UserError(f'{field}={shown(value)}: must be finite, {limit}')
  if value and abs(value) < SMALLEST_FLOAT:
    raise UserError(
      f'{field}={shown(value)}: must be 0 or at least {SMALLEST_FLOAT:.7g} in size, or it '
      'is 0 in float32'
    )


def check_array(*sizes: tuple[str, int]) -> None:
  """Refuses an array that no machine could hold; of each dimension a name and its size."""
  entries = math.prod(size for _, size in sizes)
  if entries > LARGEST_ARRAY:
    name, size = max(sizes, key=lambda named: named[1])
    raise UserError(
      f'{name}={size}: an array of {" x ".join(name for name, _ in sizes)} would have '
      f'{entries} entries; must be at most {LARGEST_ARRAY}'
    )
