"""Cuts conversations into rows of L+1 tokens: pure NumPy, no files.

A row is one of packing.py with two fields more: `answers`, L bytes, 1 where a target counts
in the loss, and `segments`, L numbers, to which conversation of the row each input belongs.
`valid` is how many targets count, wherever they stand, and `bytes` the text of these alone.

A conversation is never cut inside of an answer: it ends with its last answer that ends
within L+1 tokens, and is left out if none does.
"""

import dataclasses
import json
from collections.abc import Iterator, Sequence

import numpy as np

from elas_jax.data import chat
from elas_jax.data.packing import row_dtype
from elas_jax.data.tokenizers import Tokenizer

COUNTED = ('answers', 'last', 'all')


def text_of(record: object) -> tuple[str | None, str]:
  """(the conversation of a line of JSON, as text; or None and why it is none)."""
  if not isinstance(record, dict) or 'messages' not in record:
    return None, "no field 'messages'"
  messages = record['messages']
  if why := chat.fault(messages):
    return None, why
  if not any(message['role'] == chat.ANSWERS for message in messages):
    return None, f'messages: none of them is of the role {chat.ANSWERS!r}'
  kept = [{'role': x['role'], 'content': x['content']} for x in messages]
  return json.dumps(kept, ensure_ascii=False), ''


def contents_of(text: str) -> str:
  """What is said in a conversation that `text_of` gave, a message after the other."""
  return '\n'.join(message['content'] for message in json.loads(text))


def encode_conversations(
  tokenizer: Tokenizer, texts: Sequence[str]
) -> Iterator[tuple[list[chat.Encoded], int]]:
  """Yields ([conversation], bytes of it that are lost) for each of what `text_of` gave."""
  for text in texts:
    found = chat.encoded(json.loads(text), tokenizer)
    yield [found], found.lost


def dtype_of(sequence_length: int, vocab_size: int) -> np.dtype:
  """The little-endian layout of a row."""
  own = [('answers', 'u1', (sequence_length,)), ('segments', '<u2', (sequence_length,))]
  return np.dtype(row_dtype(sequence_length, vocab_size).descr + own)


class ChatRows:
  """Rows of whole conversations: several, protocol `packed`, or one, `document`.

  Packed ones follow one another in order, and the next row begins with the first that does
  not fit into what is left. Rows are padded with end-of-sequence tokens.

  Attributes:
    left_out: how many had no answer that ends within a row.
    shortened: how many others were cut behind an answer.
  """

  def __init__(self, dtype: np.dtype, eos_id: int, protocol: str, counted: str):
    self._dtype, self._eos_id = dtype, eos_id
    self._is_packed, self._counts = protocol == 'packed', counted
    self._room = dtype['tokens'].shape[0]
    self._begun = []  # conversations of the row that is not full
    self._used = 0  # their tokens
    self.left_out = self.shortened = 0

  def add(self, conversations: list[chat.Encoded]) -> np.ndarray:
    """Takes conversations in order; returns the full rows."""
    rows = [np.zeros(0, self._dtype)]
    for found in conversations:
      if self._counts == 'last':
        found = dataclasses.replace(found, answer=_last(found.answer))
      if not (size := self._whole(found)):
        self.left_out += 1
        continue
      self.shortened += bool(found.answer[size:].any())
      if self._begun and (not self._is_packed or self._used + size > self._room):
        rows.append(self.finish())
      self._begun.append((found.ids[:size], self._counted(found)[:size], found.lengths))
      self._used += size
    return np.concatenate(rows)

  def finish(self) -> np.ndarray:
    """The padded last row, or no row if nothing is left."""
    if not self._begun:
      return np.zeros(0, self._dtype)
    row = np.zeros(1, self._dtype)
    row['tokens'] = self._eos_id
    # Padding belongs to no conversation; nothing is counted there.
    row['segments'] = len(self._begun)
    start = 0
    for number, (ids, counted, lengths) in enumerate(self._begun):
      stop = start + len(ids)
      row['tokens'][0, start:stop] = ids
      row['segments'][0, start:stop] = number  # of inputs: the last token may be none
      targets = np.arange(start, stop)[counted] - 1
      row['answers'][0, targets] = 1
      row['bytes'] += lengths[: len(ids)][counted].sum()
      start = stop
    row['valid'] = row['answers'].sum()
    self._begun, self._used = [], 0
    return row

  def _whole(self, found: chat.Encoded) -> int:
    """Tokens of the conversation that end with its last answer within a row; 0: none."""
    ends = np.flatnonzero(np.diff(found.answer[: self._room + 1].astype(int)) < 0)
    if len(found.ids) <= self._room and found.answer[-1]:
      return len(found.ids)
    return int(ends[-1]) + 1 if len(ends) else 0

  def _counted(self, found: chat.Encoded) -> np.ndarray:
    """bool[n]: of all tokens, the first is no target."""
    return np.arange(len(found.ids)) > 0 if self._counts == 'all' else found.answer


def _last(answer: np.ndarray) -> np.ndarray:
  """Which tokens are of the last answer."""
  others = np.flatnonzero(~answer[: np.flatnonzero(answer)[-1]])
  return answer & (np.arange(len(answer)) > others[-1])
