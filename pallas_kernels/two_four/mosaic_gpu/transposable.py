"""The best mask of a 4 x 4 tile that keeps two entries of each row and column, by a thread.

The same choice, bit by bit, as rules.transposable_mask: the first of the 90 patterns, in
the order of itertools.product, whose sum in float32 is the largest. The sum of the upper
two rows and that of the lower two are added last, and a larger lower sum never gives a
smaller total. So for each upper half only the largest of the lower halves that fit is
tried: 36 totals, not 90. Which lower half it was is found afterwards, from the upper one.
"""

import itertools
from typing import Any

import numpy as np

from pallas_kernels.two_four.rules import PAIRS

# A row of a pattern is a code: bit 7 of byte BYTE_OF_COLUMN[i] is set if column i is kept.
# So the order of PAIRS is that of falling codes.
BYTE_OF_COLUMN = (3, 2, 1, 0)
CODE = 0x80808080
CODES = [sum(0x80 << 8 * BYTE_OF_COLUMN[i] for i in pair) for pair in PAIRS]
ALL = range(len(PAIRS))
OTHERS = [PAIRS.index(tuple(i for i in range(4) if i not in pair)) for pair in PAIRS]


def best_pattern(m: Any, words: np.ndarray) -> list:
  """The codes of the four rows; bits other than CODE's are arbitrary.

  Args:
    m: the machine.
    words: [4, 2], the magnitudes, by row and pair of columns.
  """
  rows = [[f for w in row for f in (w << 16, w & 0xFFFF0000)] for row in words]
  sums = [[m.add_floats(row[i], row[j]) for i, j in PAIRS] for row in rows]
  combine = lambda a, b: {
    (p, q): m.add_floats(a[p], b[q]) for p, q in itertools.product(ALL, ALL)
  }
  upper, lower = combine(*sums[:2]), combine(*sums[2:])
  totals = {
    pair: m.add_floats(upper[pair], largest)
    for pair, largest in largest_below(m, lower).items()
  }
  best = largest_of(m, list(totals.values()))
  code = m.constant(0)
  for (p, q), total in reversed(totals.items()):
    code = m.where(total != best, code, m.constant(CODES[p] | CODES[q] >> 1))
  first, second = code & CODE, (code << 1) & CODE
  found = lower_rows(m, rows, lower, first, second, best)
  return [first, second, *found]


def largest_below(m: Any, lower: dict) -> dict:
  """For each pair of upper rows, the largest sum of lower rows that fit."""
  # Upper rows p and p fit lower ones q and q; p and q fit q and p; all that differ by a
  # whole row fit one another. (q is the complement of p.)
  disjoint = largest_of(m, [lower[x, OTHERS[x]] for x in ALL])
  pairs = {
    (p, q): m.maximum(lower[p, q], lower[q, p]) for p, q in itertools.combinations(ALL, 2)
  }
  result = {}
  for p, q in itertools.product(ALL, ALL):
    x, y = sorted((OTHERS[p], OTHERS[q]))
    if p == OTHERS[q]:
      result[p, q] = disjoint
    else:
      result[p, q] = lower[x, y] if x == y else pairs[x, y]
  return result


def largest_of(m: Any, words: list):
  result = words[0]
  for word in words[1:]:
    result = m.maximum(result, word)
  return result


def lower_rows(m: Any, rows: list, lower: dict, first, second, best) -> tuple:
  """The codes of the first two lower rows that with these upper ones give the total."""
  up = m.add_floats(kept_sum(m, rows[0], first), kept_sum(m, rows[1], second))
  third = m.maximum(first ^ CODE, second ^ CODE)
  fourth = m.minimum(first ^ CODE, second ^ CODE)
  down = m.add_floats(kept_sum(m, rows[2], third), kept_sum(m, rows[3], fourth))
  missed = m.add_floats(up, down) != best
  third, fourth = m.where(missed, fourth, third), m.where(missed, third, fourth)
  # Upper rows that keep every column once leave six ways.
  single = m.constant(CODES[-1])
  for p in reversed(ALL[:-1]):
    missed = m.add_floats(up, lower[p, OTHERS[p]]) != best
    single = m.where(missed, single, m.constant(CODES[p]))
  several = (first ^ second) != CODE
  return m.where(several, third, single), m.where(several, fourth, single ^ CODE)


def kept_sum(m: Any, row: list, code):
  """The sum of the entries of a row that a code keeps; only one addition rounds."""
  a, b, c, d = (
    x & m.permute(code, code, 0x1111 * (8 | byte)) for x, byte in zip(row, BYTE_OF_COLUMN)
  )
  return m.add_floats(m.add_floats(a, b), m.add_floats(c, d))
