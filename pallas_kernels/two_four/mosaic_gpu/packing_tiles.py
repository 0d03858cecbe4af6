"""Packs tiles of a matrix in shared memory along either axis, or along both from one read.

Written for a machine of 128 threads, as packing.py is. A warpgroup takes 64 rows (tokens)
of 128 columns (features): warp w rows 16 w to + 15, lane l columns 4 l to + 3. So a thread
has whole groups of both axes, even whole 4 x 4 tiles, and its sixteen rows are one half of
a metadata word.
"""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from pallas_kernels.two_four.mosaic_gpu.packing import (
  LOWER,
  MAGNITUDE,
  ONES,
  TILE,
  UPPER,
  each,
  fill,
  keep,
  largest_two,
  select,
  trade,
)
from pallas_kernels.two_four.mosaic_gpu.transposable import BYTE_OF_COLUMN, best_pattern

ROWS = 16  # of a thread


def pack_tile(
  m: Any,
  y: Any,
  half: Any,
  features: tuple[Any, Any] | None,
  tokens: tuple[Any, Any] | None,
  rule: str,
  activation: str | None,
) -> None:
  """Packs 64 x 128 bf16, one half of a tile of 128 tokens.

  Args:
    m: the machine.
    y: reference to the entries, swizzled.
    half: which half of the tile, 0 or 1.
    features: references to values 64 x 64, swizzled, and metadata uint32[256].
    tokens: to values 32 x 128, swizzled, and metadata uint32[2, 256], of which the words
      of this half of the tile are written.
    rule: 'top2' or 'transposable'.
    activation: 'relu2' squares the positive entries first and drops the others.
  """
  lane = m.lane()
  words = load(m, lane, y)
  if activation == 'relu2':
    words = each(m.squared_relu, words)
  signed = activation is None
  if rule == 'transposable':
    pack_pair = transposable_packer(m, words, signed)
  else:
    pack_pair = lambda x, places: keep(x, largest_two(m, x, signed))
  if features:
    pack_features(m, lane, words, pack_pair, *features)
  if tokens:
    pack_tokens(m, lane, words, pack_pair, *tokens, half)


def load(m: Any, lane: Any, y: Any) -> np.ndarray:
  """The entries of a thread: words [16, 2], by row and pair of columns."""
  words = np.empty((ROWS, 2), object)
  for row in range(ROWS):
    words[row, 0], words[row, 1] = m.load2(y, place(lane, row, ROWS))
  return words


def place(lane: Any, row: int, rows: int):
  """Where a thread's four columns of a row are in 128 columns, in bytes.

  `row` is counted in its warp, of whose `rows` all are in the reference.
  """
  chunk = (lane.r & 3) << 1 | lane.q >> 1
  start = lane.w * (rows // 8 * 2 * TILE) + (lane.r >> 2) * TILE + (lane.q & 1) * 8
  return start + ((chunk ^ row % 8) << 4) + (row // 8 * 2 * TILE + row % 8 * 128)


def pack_features(
  m: Any, lane: Any, words: np.ndarray, pack_pair: Callable, values: Any, metadata: Any
) -> None:
  """Pairs of groups are those of rows r and r + 8, whose nibbles share a metadata word."""
  parts = []
  for row in range(8):
    x = [
      m.permute(words[row, side], words[row + 8, side], selector)
      for side, selector in itertools.product((0, 1), (LOWER, UPPER))
    ]
    low, high, nibbles = pack_pair(x, [((row, i), (row + 8, i)) for i in range(4)])
    start = lane.w * (2 * TILE) + lane.q * 4 + ((lane.r ^ row) << 4) + row * 128
    m.store(m.permute(low, high, LOWER), values, start)
    m.store(m.permute(low, high, UPPER), values, start + TILE)
    parts.append(nibbles & (0x000F000F << row % 4 * 4))
  for block in (0, 1):
    a, b, c, d = parts[4 * block : 4 * block + 4]
    word = transpose_nibbles(m, lane, a | b | c | d)
    row = lane.q + 4 * block
    index = ((lane.w * 2 + (lane.r & 1)) * 8 + row) * 4 + (lane.r >> 1)
    m.store(word, metadata, index * 4)


def transpose_nibbles(m: Any, lane: Any, x):
  """Nibble i of lane q of a quad <- nibble q of lane i, in both halves of words."""
  upper, odd = lane.q >> 1, lane.q & 1
  # Bytes (x0, got0, x2, got2) in lanes 0 and 1, (got1, x1, got3, x3) in 2 and 3.
  x = m.permute(x, m.shuffle(x, 2), (upper * (0x6240 ^ 0x3715)) ^ 0x6240)
  got, left = m.shuffle(x, 1), odd * 24 + 4
  turned = (got << left) | (got >> (left ^ 24))
  return select((odd * ONES) ^ 0x0F0F0F0F, x, turned)


def pack_tokens(
  m: Any,
  lane: Any,
  words: np.ndarray,
  pack_pair: Callable,
  values: Any,
  metadata: Any,
  half: Any,
) -> None:
  """Pairs of groups are those of neighbouring columns, as they lie in the words."""
  kept, parts = np.empty((8, 2), object), np.empty((2, 4), object)
  for side, group in np.ndindex(parts.shape):
    rows = range(4 * group, 4 * group + 4)
    places = [((row, 2 * side), (row, 2 * side + 1)) for row in rows]
    low, high, nibbles = pack_pair([words[row, side] for row in rows], places)
    kept[2 * group, side], kept[2 * group + 1, side] = low, high
    parts[side, group] = nibbles & (0x000F000F << 4 * group)
  for row in range(8):
    m.store2(list(kept[row]), values, place(lane, row, 8))
  first, second = (a | b | c | d for a, b, c, d in parts)
  # Columns c and c + 8 share a metadata word; they are two lanes apart.
  upper = lane.q >> 1
  own, got = trade(m, (lane.q & 2) != 2, first, second, 2)
  for odd, selector in enumerate((LOWER, UPPER)):
    exchanged = selector >> 8 | (selector & 0xFF) << 8
    word = m.permute(own, got, (upper * (selector ^ exchanged)) ^ selector)
    column = (lane.q & 1) * 4 + upper * 2 + odd
    index = (((lane.r & 3) * 2 + (lane.w & 1)) * 8 + column) * 4 + (lane.w >> 1)
    m.store(word, metadata, (index + half * 2 + (lane.r >> 2) * 256) * 4)


def transposable_packer(m: Any, words: np.ndarray, signed: bool) -> Callable:
  """A function of four entries and, for those, where the two groups have them.

  It keeps what the best patterns of the thread's four 4 x 4 tiles keep.
  """
  sizes = each(lambda x: x & MAGNITUDE, words) if signed else words
  codes = [code for i in range(0, ROWS, 4) for code in best_pattern(m, sizes[i : i + 4])]

  def pack_pair(x, places):
    masks = []
    for (row, column), (other_row, other_column) in places:
      byte, other_byte = BYTE_OF_COLUMN[column], 4 + BYTE_OF_COLUMN[other_column]
      fill_halves = (8 | byte) * 0x11 | (8 | other_byte) * 0x1100
      masks.append(m.permute(codes[row], codes[other_row], fill_halves))
    low, high, nibbles = keep(x, masks)
    some = fill(m, ((low | high) & MAGNITUDE) + MAGNITUDE)
    # A group of which zeros are kept has the nibble 0b0100 whatever the pattern.
    return low, high, (nibbles & some) | ((some ^ ONES) & 0x44444444)

  return pack_pair
