"""Which bytes of a text each token holds, and which bytes no token tells: pure NumPy."""

import collections
import itertools
import re
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np

_BYTE_TOKEN = re.compile(r'<0x[0-9A-F]{2}>')  # of vocabularies with byte fallback


def token_sizes(
  vocabulary: dict[str, int],
  added: Iterable[str],
  is_byte_level: bool,
  prefix: str,
  suffix: str,
) -> np.ndarray:
  """UTF-8 bytes int64[V] that the string of each token stands for.

  Args:
    vocabulary: the id of every token.
    added: those of them that are plain text, whatever the model is.
    is_byte_level: whether each character of the others stands for a byte.
    prefix: what marks a token that continues a word, '##' say.
    suffix: what marks a token that ends one, '</w>' say.
  """
  sizes = np.zeros(max(vocabulary.values()) + 1, np.int64)
  added = set(added)
  for token, i in vocabulary.items():
    inner = token.removeprefix(prefix).removesuffix(suffix)
    if token in added:
      sizes[i] = len(token.encode())
    elif is_byte_level:
      sizes[i] = len(inner)
    elif _BYTE_TOKEN.fullmatch(token):
      sizes[i] = 1
    else:
      sizes[i] = len(inner.replace('▁', ' ').encode())
  return sizes


def offset_array(offsets: Sequence[tuple[int, int]]) -> np.ndarray:
  """(start, end) in characters, int64 (n, 2)."""
  flat = itertools.chain.from_iterable(offsets)
  return np.fromiter(flat, np.int64, 2 * len(offsets)).reshape(-1, 2)


def byte_lengths(text: str, offsets: np.ndarray, sizes: np.ndarray) -> np.ndarray:
  """Bytes of `text` for each token, int32[n]; those behind the last one are of none.

  A token reaches from where the one before it ended to its own end. Tokens that share a
  character (bytes of it, say) have its offsets in common: each takes its own size from
  the end, and the first what is left.

  Args:
    text: m characters.
    offsets: int64 (n, 2), the characters that each token stands for.
    sizes: int64[n], the bytes of each token's own string.
  """
  if not len(offsets):
    return np.zeros(0, np.int32)
  position = np.concatenate([[0], np.cumsum(_widths(text))])
  ends = np.maximum.accumulate(offsets[:, 1])
  is_last = np.append(offsets[1:, 0] >= ends[:-1], True)  # of those that share
  lasts = np.flatnonzero(is_last)
  run = np.cumsum(is_last) - is_last  # which run a token is in
  stops = position[ends[lasts]]  # in bytes
  starts = np.concatenate([[0], stops[:-1]])
  through = np.cumsum(sizes)
  behind = through[lasts][run] - through  # bytes of the run's later tokens
  reached = np.maximum(stops[run] - behind, starts[run])
  return np.diff(reached, prepend=0).astype(np.int32)


def lost_bytes(text: str, offsets: np.ndarray, is_known: np.ndarray) -> int:
  """Bytes of the characters, white space apart, that no known token stands for.

  An unknown word is one token whatever it says, and some models drop what they do not
  know: that text costs nothing or little to predict. Accents, and whatever else Unicode
  composes with the character before, are not counted: a token stands for the latter.

  Args:
    text: m characters.
    offsets: int64 (n, 2), the characters that each token stands for.
    is_known: bool[n], False for the token of unknown words.
  """
  known = offsets[is_known]
  opened = np.bincount(known[:, 0], minlength=len(text) + 1)
  closed = np.bincount(known[:, 1], minlength=len(text) + 1)
  is_covered = np.cumsum(opened - closed)[: len(text)] > 0
  if is_covered.all():
    return 0
  lost = _codes(text)[~is_covered].tobytes().decode('utf-32-le')
  counts = collections.Counter(''.join(lost.split()))
  return sum(n * len(x.encode()) for x, n in counts.items() if not _may_compose(x))


def _may_compose(character: str) -> bool:
  """Whether it is a mark, or one of Hangul's vowels and final consonants."""
  return all(
    unicodedata.category(x).startswith('M') or '\u1160' <= x <= '\u11ff'
    for x in unicodedata.normalize('NFKD', character)
  )


def _codes(text: str) -> np.ndarray:
  return np.frombuffer(text.encode('utf-32-le'), '<u4')


def _widths(text: str) -> np.ndarray:
  """UTF-8 bytes of each character."""
  if text.isascii():
    return np.ones(len(text), np.int64)
  codes = _codes(text)
  return 1 + (codes >= 0x80) + (codes >= 0x800) + (codes >= 0x10000)
