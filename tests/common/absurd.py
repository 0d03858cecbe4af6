"""Numbers and texts that no field was made for, and the fields that they are tried on."""

import math

from hypothesis import strategies as st

from configs import default, functions, images

# Configs of every kind, by what names them on a command line.
KINDS = {
  'configs/default.py:elas': lambda: default.get_config('elas'),
  'configs/images.py:digits,vit': lambda: images.get_config('digits,vit'),
  'configs/functions.py:bessel,bspline': lambda: functions.get_config('bessel,bspline'),
}
INTEGERS = (
  *(0, -1, 10**4, 10**6, 10**9, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63),
  *(10**12, 10**30, 10**400, 10**5000, -(2**31), -(2**63), -(10**5000)),
)
FLOATS = (
  *(0.0, -0.0, -1.0, 1e-320, 1e-60, 1e-38, 1e30, 3.4028235e38, 3.5e38, 1e300, -1e300),
  *(math.nan, math.inf, -math.inf, 1 - 1e-12),
)
NUMBERS = (*INTEGERS, *FLOATS, True)
# As they stand on a command line.
TEXTS = (
  *('', ' ', '-', '.', 'nan', 'inf', '1e400', '-1e400', '1e-400', '0x', '1,', '()', '[]'),
  *('9' * 5000, '-' * 20000 + '1', '(' * 50000, '[' * 300 + ']' * 300, '1' + '+1' * 20000),
  *('{}', '{[]}', '{[]: 1}', "b''", '1j', '\u0661\u0662', '\u00b2', '\uff11', 'x' * 5000),
  *('0,5', '5,' + '9' * 5000, '\u00b2,\u00b3', '\u0661,\u0662', '1,2,3', '-1,5'),
)
# Python writes no integer of more than 4300 digits.
WRITABLE = tuple(x for x in NUMBERS if abs(x) != 10**5000)
others = st.one_of(st.integers(), st.integers(-(2**70), 2**70), st.floats())
numbers = st.sampled_from(NUMBERS) | others
texts = st.sampled_from((*TEXTS, *map(str, WRITABLE))) | others.map(str) | st.text()


def leaves(tree, above=''):
  """{'model.width': 192, ...}: the fields of a nested dict with their values."""
  flat = {}
  for name, value in tree.items():
    within = leaves(value, f'{above}{name}.') if isinstance(value, dict) else None
    flat |= {above + name: value} if within is None else within
  return flat


def replaced(tree, name, value):
  """The nested dict with one field changed."""
  head, _, rest = name.partition('.')
  return tree | {head: replaced(tree[head], rest, value) if rest else value}


def like(old, number):
  """The number, in the form of the field's old value: alone, in rules or in a shape."""
  if not isinstance(old, tuple):
    return number
  rules = not old or isinstance(old[0], tuple)
  return (('.*', number),) if rules else (number,) * len(old)
