"""Two of four, their positions and their places, thread by thread.

Everything here is written for a machine of 128 threads: `lanes.Threads` on the GPU, and a
simulated one in the tests. A word that holds two bf16 has the first in its lower half.
References are shared memory; values of a tile are stored in rows of 64 bf16 (128 bytes),
swizzled as tensor cores and TMA want them: 16-byte chunk c of row r is at c ^ r % 8.

Groups are pruned two at a time, in the lower and the upper halves of words: the entries of
such a pair of groups are four words, and what is kept of them four words of masks.
"""

import itertools
from typing import Any

import numpy as np

TILE = 8 * 128  # bytes of eight rows of 64 bf16
BLOCKS = 8  # of 8 columns, taken together by `gate`
ONES = 0xFFFFFFFF
MAGNITUDE = 0x7FFF7FFF
# Selectors of m.permute, for words a and b: both lower halves, both upper halves, and
# each half of a filled with its sign.
LOWER, UPPER, SIGNS = 0x5410, 0x7632, 0xBB99


def select(mask, a, b):
  """Bit by bit: of a where the mask is one, of b where it is zero."""
  return b ^ ((a ^ b) & mask)


def fill(m: Any, x):
  """Each half of a word filled with its highest bit."""
  return m.permute(x, x, SIGNS)


def keep(x: list, masks: list):
  """The two kept entries of each of two groups, in order, and their nibbles.

  Args:
    x: the four entries, those of one group in the lower halves of the words.
    masks: for each entry, halves of ones or zeros.

  Returns:
    Three words; a half of the third is the nibble four times.
  """
  low = select(masks[0], x[0], select(masks[1], x[1], x[2]))
  high = select(masks[3], x[3], select(masks[2], x[2], x[1]))
  # The first index is 0 if masks[0], else 1 if masks[1], else 2; the other, 3 if masks[3],
  # else 2 if masks[2], else 1. The lower two bits of nibbles are the first.
  middle = select(0x33333333, masks[1], masks[2]) ^ 0x66666666
  ends = select(0x33333333, masks[0], masks[3])
  nibbles = (middle & ((ends & 0x33333333) ^ ONES)) | (ends & 0xCCCCCCCC)
  return low, high, nibbles


def largest_two(m: Any, x: list, signed: bool) -> list:
  """The masks of the two largest magnitudes of each group; on ties of the lower index."""
  sizes = [v & MAGNITUDE for v in x] if signed else x
  below = [v ^ MAGNITUDE for v in sizes[:3]]
  # Sizes have 15 bits: the 16th of a half is set if entry j beats entry i < j.
  beats = {(j, i): sizes[j] + below[i] for i, j in itertools.combinations(range(4), 2)}
  beats |= {(i, j): beat ^ ONES for (j, i), beat in beats.items()}
  masks = []
  for i in range(4):
    a, b, c = (beats[i, j] for j in range(4) if j != i)
    masks.append(fill(m, (a & b) | (c & (a | b))))  # beats two of the three others
  return masks


def trade(m: Any, keep_first, first, second, distance: int):
  """With the lane at `distance`: keeps one of two words, sends the other. (own, got)."""
  sent = m.where(keep_first, second, first)
  return m.where(keep_first, first, second), m.shuffle(sent, distance)


def each(function: Any, words: np.ndarray) -> np.ndarray:
  """A function of every word of a fragment."""
  result = np.empty(words.shape, object)
  for index in np.ndindex(words.shape):
    result[index] = function(words[index])
  return result


def rows_of_quad(m: Any, lane: Any, words: np.ndarray) -> list[tuple[Any, Any]]:
  """All four columns of a group: of row r in even lanes, of row r + 8 in odd ones.

  `words` [N/8, 2] as lanes.fragments gives them; the groups are 2 j + q // 2.
  """
  even, groups = (lane.q & 1) != 1, []
  for upper_row, lower_row in words:
    own, got = trade(m, even, upper_row, lower_row, 1)
    groups.append((m.where(even, own, got), m.where(even, got, own)))
  return groups


def value_offset(lane: Any, block: int, width: int):
  """Where the pair of group 2 block + q // 2 is, in bytes, in rows of `width` bf16."""
  row_tile = (lane.w * 2 + (lane.q & 1)) * (width // 64 * TILE)
  chunk = (lane.r ^ (block % 16 // 2)) << 4
  place = block // 16 * TILE + block % 2 * 8
  return row_tile + (lane.r << 7) + chunk + (lane.q >> 1) * 4 + place


def prune(
  m: Any,
  words: np.ndarray,
  values: Any,
  metadata: Any,
  activation: str | None,
  width: int = 0,
) -> None:
  """Packs a fragment along its columns: 64 x N into N/2 values a row and N/128 x 256 words.

  Args:
    m: the machine.
    words: [N/8, 2], the fragment; N a multiple of 64.
    values: reference to 64 rows of at least N/2 bf16, swizzled.
    metadata: reference to uint32[at least N/128, 256].
    activation: 'relu2' squares the positive entries first and drops the others.
    width: of a row of values in memory. A reference to part of the columns of a wider
      matrix has the rows of that matrix, so the fragment does not tell.
  """
  lane, width, parts = m.lane(), width or len(words) * 4, []
  if activation == 'relu2':
    words = each(m.squared_relu, words)
  groups = rows_of_quad(m, lane, words)
  own = m.constant(0xF) << (lane.q >> 1) * 4  # of the nibbles of four groups in 16 columns
  for number in range(0, len(groups), 2):
    x = [
      m.permute(a, b, selector)
      for a, b in zip(*groups[number : number + 2])
      for selector in (LOWER, UPPER)
    ]
    low, high, nibbles = keep(x, largest_two(m, x, signed=activation is None))
    for block, selector in ((0, LOWER), (1, UPPER)):
      offset = value_offset(lane, number + block, width)
      m.store(m.permute(low, high, selector), values, offset)
    parts.append((nibbles & own) | ((nibbles >> 16) & own << 8))
  store_metadata(m, lane, parts, metadata)


def store_metadata(m: Any, lane: Any, parts: list, metadata: Any) -> None:
  """Collects the nibbles of each row's 16 columns into words of the hardware's format.

  A part has the nibbles that this lane made, in its lower half. A word is half from even
  lanes (row r) and half from odd ones (row r + 8). Of each four words of a quad, which are
  64 columns, lane q collects number q.
  """
  parts = [part << (lane.q & 1) * 16 for part in parts]
  lower, even = (lane.q & 2) != 2, (lane.q & 1) != 1
  for number in range(len(parts) // 4):
    a, b, c, d = parts[4 * number : 4 * number + 4]
    (own_a, got_a), (own_b, got_b) = trade(m, lower, a, c, 2), trade(m, lower, b, d, 2)
    own, got = trade(m, even, own_a | got_a, own_b | got_b, 1)
    m.store(own | got, metadata, word_offset(lane, number))


def word_offset(lane: Any, number: int):
  """Where lane q keeps word 4 number + q of its rows, each of 16 columns, in bytes."""
  k32 = (lane.q >> 1) + number % 2 * 2
  word = ((lane.w * 2 + (lane.q & 1)) * 8 + lane.r) * 4 + k32
  return (word + number // 2 * 256) * 4


def gate(m: Any, words: np.ndarray, values: Any, metadata: Any, width: int = 0) -> None:
  """Replaces packed z by 2 sqrt(z) d at its kept entries, d being a fragment.

  Args as of `prune`: d is `words`, z is read from `values` and `metadata`.
  """
  lane, width = m.lane(), width or len(words) * 4
  groups, shift = rows_of_quad(m, lane, words), (lane.q >> 1) * 4 + (lane.q & 1) * 16
  for first in range(0, len(groups), BLOCKS):
    blocks = range(first, first + BLOCKS)
    # As in `spread`, no store before the last load; more at a time need more registers.
    nibbles = _nibbles_of_row(m, lane, first // BLOCKS, metadata)
    offsets = [value_offset(lane, block, width) for block in blocks]
    loaded = [m.load(values, offset) for offset in offsets]
    for block, z, offset in zip(blocks, loaded, offsets):
      word = nibbles[block % BLOCKS // 2]
      nibble = (word >> (shift + block % 2 * 8)) & 15
      pair = groups[block]
      kept = _entry(m, *pair, nibble & 3) | _entry(m, *pair, nibble >> 2) << 16
      m.store(m.slope(z, kept), values, offset)


def _nibbles_of_row(m: Any, lane: Any, number: int, metadata: Any) -> list:
  """The words with the nibbles of rows r and r + 8, for each 16 of 64 columns."""
  place = number // 2 * 256 + number % 2 * 2
  word = lambda half: ((lane.w * 2 + half) * 8 + lane.r) * 4 + place
  even, odd = (m.load2(metadata, word(half) * 4) for half in (0, 1))
  return [word for pair in zip(even, odd) for word in pair]


def _entry(m: Any, first, second, index):
  """The bf16 number `index` of four, in the lower half of a word."""
  word = m.where((index & 2) != 0, second, first)
  return (word >> ((index & 1) << 4)) & 0xFFFF


def spread(m: Any, values: Any, metadata: Any, dense: Any) -> None:
  """Unpacks half of a tile of 64 x 128: the first 64 columns by warpgroup 0, the last by 1.

  Args:
    values: reference to 64 x 64 bf16, swizzled, the kept entries.
    metadata: reference to uint32[256].
    dense: reference to 64 x 64 bf16, swizzled: what this warpgroup writes.
  """
  thread = m.thread()
  side, part, row = (thread >> 7) & 1, (thread >> 6) & 1, thread & 63
  row_offset, r = (row >> 3) * TILE + ((row & 7) << 7), row & 7
  k32 = side * 2 + part
  loaded, stored = [], []
  for k16 in (0, 1):
    word = (((row >> 4) * 2 + k16) * 8 + r) * 4 + k32
    nibbles = m.load(metadata, word * 4) >> ((row >> 3) & 1) * 16
    loaded.append((nibbles, m.load4(values, row_offset + ((k32 * 2 + k16 ^ r) << 4))))
  # No store before the last load: the compiler cannot know that they are not of one place,
  # and would wait for the first half before it loads the second.
  for nibbles, pairs in loaded:
    for number, pair in enumerate(pairs):
      stored += _four(m, pair, (nibbles >> 4 * number) & 15)
  for chunk in range(4):
    place = row_offset + ((part * 4 + chunk ^ r) << 4)
    m.store4(stored[4 * chunk : 4 * chunk + 4], dense, place)


def _four(m: Any, pair, nibble) -> tuple[Any, Any]:
  """The four entries of a group, in two words."""
  zero = pair & 0
  low, high, first, last = pair & 0xFFFF, pair >> 16, nibble & 3, nibble >> 2
  early, late = m.where(first != 2, low << (first & 1) * 16, zero), last != 1
  return (
    early | m.where(late, zero, high << 16),
    m.where(first != 2, zero, low) | m.where(late, high << (last & 1) * 16, zero),
  )
