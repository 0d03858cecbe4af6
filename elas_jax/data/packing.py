"""Cuts token streams into rows of L+1 tokens: pure NumPy, no files.

A row is an entry of `row_dtype`: int32 `valid`, the number of targets that count;
int32 `bytes`, the bytes of text that those targets cover; and L+1 `tokens`. The
model's inputs are tokens[:L], its targets tokens[1:], of which the first `valid` count
in the loss.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

Encoding = tuple[np.ndarray, np.ndarray]  # see tokenizers.py


class Piece(NamedTuple):
  """Some tokens of a document; the last piece ends with the end-of-sequence token."""

  ids: np.ndarray  # uint32[n]
  lengths: np.ndarray  # int32[n], bytes of text
  is_last: bool


def row_dtype(sequence_length: int, vocab_size: int) -> np.dtype:
  """The little-endian layout of a row; ids take two bytes where they fit."""
  token = '<u2' if vocab_size <= 1 << 16 else '<u4'
  return np.dtype(
    [('valid', '<i4'), ('bytes', '<i4'), ('tokens', token, (sequence_length + 1,))]
  )


def segments(tokens_BxM: np.ndarray, eos_id: int) -> np.ndarray:
  """Of packed rows, to which document each input belongs: int32 (B, M - 1), in order.

  The end-of-sequence token between two documents belongs to the second: as an input it is
  where that one begins, as it is in front of a prompt, and as a target the end of the
  first. So every target has its own document before it and nothing else.
  """
  return np.cumsum(tokens_BxM[:, :-1] == eos_id, axis=1, dtype=np.int32)


class PackedRows:
  """Protocol `packed`: all documents joined, cut into windows of L+1 with stride L.

  Consecutive rows share one token, so every token but the very first is a target
  exactly once. The last row is padded with end-of-sequence tokens.
  """

  def __init__(self, dtype: np.dtype, eos_id: int):
    self._dtype = dtype
    self._eos_id = eos_id
    self._length = dtype['tokens'].shape[0] - 1
    self._ids = np.zeros(0, np.uint32)
    self._lengths = np.zeros(0, np.int32)

  def add(self, pieces: list[Piece]) -> np.ndarray:
    """Takes documents, or pieces of them in order; returns the full rows."""
    self._ids = np.concatenate([self._ids, *(piece.ids for piece in pieces)])
    self._lengths = np.concatenate([self._lengths, *(piece.lengths for piece in pieces)])
    count = max(0, len(self._ids) - 1) // self._length
    rows = np.zeros(count, self._dtype)
    used = count * self._length
    if count:
      windows = np.lib.stride_tricks.sliding_window_view(self._ids, self._length + 1)
      rows['tokens'] = windows[: used : self._length]
      rows['valid'] = self._length
      of_targets = self._lengths[1 : used + 1].reshape(count, self._length)
      rows['bytes'] = of_targets.sum(axis=1)
    self._ids, self._lengths = self._ids[used:], self._lengths[used:]
    return rows

  def finish(self) -> np.ndarray:
    """The padded last row, or no row if nothing is left to predict."""
    if len(self._ids) < 2:
      return np.zeros(0, self._dtype)
    row = np.zeros(1, self._dtype)
    row['tokens'] = self._eos_id
    row['tokens'][0, : len(self._ids)] = self._ids
    row['valid'] = len(self._ids) - 1
    row['bytes'] = self._lengths[1:].sum()
    return row


class DocumentRows:
  """Protocol `document`: one document a row, cut to L tokens and padded to L+1.

  A cut document keeps the end-of-sequence token as its last, as the T5 tokenizer
  does; the bytes that are cut off count for nothing.
  """

  def __init__(self, dtype: np.dtype, eos_id: int):
    self._dtype = dtype
    self._eos_id = eos_id
    self._length = dtype['tokens'].shape[0] - 1
    self._begun = []  # pieces of a document that has not ended, as many as matter
    self._count = 0  # their tokens

  def add(self, pieces: list[Piece]) -> np.ndarray:
    """One row for each document that ends and has at least two tokens."""
    documents = [document for document in self._join(pieces) if len(document[0]) > 1]
    rows = np.zeros(len(documents), self._dtype)
    rows['tokens'] = self._eos_id
    for row, (ids, lengths) in zip(rows, documents):
      if len(ids) > self._length:
        kept = self._length - 1
        ids = np.append(ids[:kept], np.uint32(self._eos_id))
        lengths = np.append(lengths[:kept], np.int32(0))
      row['tokens'][: len(ids)] = ids
      row['valid'] = len(ids) - 1
      row['bytes'] = lengths[1:].sum()
    return rows

  def _join(self, pieces: list[Piece]) -> Iterator[Encoding]:
    """The documents that end, those above L tokens perhaps without their end."""
    for ids, lengths, is_last in pieces:
      if self._count <= self._length:
        self._begun.append((ids, lengths))
        self._count += len(ids)
      if is_last:
        yield tuple(map(np.concatenate, zip(*self._begun)))
        self._begun, self._count = [], 0

  def finish(self) -> np.ndarray:
    """No row: each document is complete by itself."""
    return np.zeros(0, self._dtype)


PROTOCOLS = {'packed': PackedRows, 'document': DocumentRows}
