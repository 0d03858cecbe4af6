"""Which block is the next one where several sources are mixed by shares of rows.

After any n rows of a phase, source i, whose share is w_i, has had c_i(n) of them with
|c_i(n) - w_i n| < 1. For that its j-th row (from 1) must be one of the phase's rows
[floor((j - 1) / w_i), ceil(j / w_i)); taking, among those that may come, the one that must
come first keeps them all in there (proportionate fairness on one processor: Baruah, Cohen,
Plaxton and Varvel 1996). Shares are integers a_i, w_i = a_i / A, so the pattern repeats
after A rows.
"""

import bisect
import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Phase(NamedTuple):
  """From batch `start` (from 0) on, source i has shares[i] of sum(shares) rows."""

  start: int
  shares: tuple[int, ...]


@functools.lru_cache(maxsize=64)
def pattern(shares: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
  """(source, how many rows it has had before) of each of the sum(shares) rows, (A,)."""
  whole = sum(shares)
  sources, before = np.empty(whole, np.int16), np.empty(whole, np.int64)
  had = [0] * len(shares)
  # Of the next row of each source that has a share: when it may come, and by when it must.
  release = [0 if share else whole for share in shares]
  due = [-(-whole // share) if share else whole + 1 for share in shares]
  for row in range(whole):
    source = min(
      (i for i, begun in enumerate(release) if begun <= row), key=due.__getitem__
    )
    sources[row], before[row] = source, had[source]
    had[source] += 1
    release[source] = had[source] * whole // shares[source]
    due[source] = -(-(had[source] + 1) * whole // shares[source])
  return sources, before


class MixedOrder:
  """The blocks of several sources in the order of their phases.

  Args:
    sizes: of each source, in blocks.
    phases: the first starts at 0, none before the one above it.
    batch_size: rows of a batch, all of which are of one phase.
  """

  def __init__(self, sizes: Sequence[int], phases: Sequence[Phase], batch_size: int):
    self._offsets = np.cumsum([0, *sizes[:-1]]).tolist()
    self._shares = [phase.shares for phase in phases]
    self._starts = [phase.start * batch_size for phase in phases]
    # How many rows each source has had when a phase starts.
    self._before = [[0] * len(sizes)]
    for (begin, end), shares in zip(zip(self._starts, self._starts[1:]), self._shares):
      had = counts(shares, end - begin)
      self._before.append([x + y for x, y in zip(self._before[-1], had)])

  def place(self, row: int) -> tuple[int, int]:
    """(source, how many of its rows came before) of a row of the endless stream."""
    phase = bisect.bisect_right(self._starts, row) - 1
    shares = self._shares[phase]
    sources, before = pattern(shares)
    periods, rest = divmod(row - self._starts[phase], len(sources))
    source = int(sources[rest])
    since = periods * shares[source] + int(before[rest])
    return source, self._before[phase][source] + since

  def number(self, own: Sequence[Sequence[int]], row: int) -> int:
    """Of the block, where those of a source follow those of the one before.

    own: the endless order of the blocks of each source.
    """
    source, had = self.place(row)
    return self._offsets[source] + own[source][had]


def counts(shares: tuple[int, ...], rows: int) -> list[int]:
  """How many of the first rows of a phase each source has."""
  sources, _ = pattern(shares)
  periods, rest = divmod(rows, len(sources))
  first = np.bincount(sources[:rest], minlength=len(shares))
  return [periods * share + int(x) for share, x in zip(shares, first)]
