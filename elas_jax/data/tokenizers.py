"""Tokenizers: bytes, or a Hugging Face tokenizer.json.

Both classes offer the same: vocab_size (largest usable id + 1), eos_id, fingerprint,
encode, encode_batch, decode and to_json. An encoding is a pair (ids, byte_lengths): the
token ids uint32[n], without special tokens, and int32[n], how many UTF-8 bytes of the
text each token covers. Text that normalisation or splitting skips counts for the next
token; whatever remains at the end of the text counts for the end-of-sequence token,
so that bits per byte are comparable between tokenizers.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from elas_jax.errors import UserError

Encoding = tuple[np.ndarray, np.ndarray]

FILE_NAME = 'tokenizer.json'
# The first of these that the vocabulary holds ends a document.
END_TOKENS = (
  '</s>',
  '<|endoftext|>',
  '<eos>',
  '<|end_of_text|>',
  '<|eot_id|>',
  '[SEP]',
  '<s>',
)
# Longer documents are encoded in pieces: an encoding takes a hundred times the memory
# of its text.
PIECE_CHARACTERS = 1 << 20
BYTES_MARK = {'elas_jax_tokenizer': 'bytes'}


class BytesTokenizer:
  """Ids 0..255 are bytes, 256 ends a document."""

  vocab_size = 257
  eos_id = 256
  fingerprint = 'bytes'

  def encode(self, text: str) -> Encoding:
    """(ids, byte_lengths) of the text."""
    ids = np.frombuffer(text.encode(), np.uint8).astype(np.uint32)
    return ids, np.ones(len(ids), np.int32)

  def encode_batch(self, texts: Sequence[str]) -> list[Encoding]:
    """One encoding for each text."""
    return [self.encode(text) for text in texts]

  def decode(self, ids: Sequence[int]) -> str:
    """The text of the ids without special ones; broken UTF-8 becomes U+FFFD."""
    return bytes(i for i in map(int, ids) if i < 256).decode('utf-8', 'replace')

  def to_json(self) -> str:
    """The text that parse_tokenizer makes this of again."""
    return json.dumps(BYTES_MARK)

  def save(self, directory: str | os.PathLike) -> pathlib.Path:
    """Writes a file that load_tokenizer reads; returns its path."""
    path = pathlib.Path(directory, FILE_NAME)
    path.write_text(self.to_json(), encoding='utf-8')
    return path


class HuggingFaceTokenizer:
  """A tokenizer.json of the `tokenizers` library."""

  def __init__(self, text: str, path: str):
    """Reads the JSON `text` of a tokenizer; `path` is for messages."""
    import tokenizers  # compiled; not loaded where bytes are enough

    self._text = text
    try:
      self._tokenizer = tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the library raises plain Exception
      reason = str(error).splitlines()[0]
      raise UserError(
        f'data.tokenizer={path!r} is no tokenizer.json of Hugging Face ({reason}); '
        "accepted are 'bytes' and the path of such a file"
      ) from error
    # Published files may cut or pad to a length: not here.
    self._tokenizer.no_truncation()
    self._tokenizer.no_padding()
    # '<|endoftext|>' inside of a document is text and not the end of it.
    self._tokenizer.encode_special_tokens = True
    vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
    ends = [vocabulary[token] for token in END_TOKENS if token in vocabulary]
    if not ends:
      raise UserError(
        f'data.tokenizer={path!r} has no token that ends a document; accepted are '
        f'{" ".join(END_TOKENS)}'
      )
    self.eos_id = ends[0]
    self.vocab_size = max(vocabulary.values()) + 1
    self.fingerprint = hashlib.sha256(text.encode()).hexdigest()

  def encode(self, text: str) -> Encoding:
    """(ids, byte_lengths) of the text."""
    return self.encode_batch([text])[0]

  def encode_batch(self, texts: Sequence[str]) -> list[Encoding]:
    """One encoding for each text, by the library's batch call."""
    parts = [[] for _ in texts]
    skipped = [0] * len(texts)  # bytes that the next token of the same text takes
    for group in _groups(texts):
      encodings = self._tokenizer.encode_batch(
        [piece for _, piece in group], add_special_tokens=False
      )
      for (i, piece), encoding in zip(group, encodings):
        ids = np.array(encoding.ids, np.uint32)
        lengths, remainder = _byte_lengths(piece, encoding.offsets)
        if len(lengths):
          lengths[0] += skipped[i]
          skipped[i] = 0
        skipped[i] += remainder
        parts[i].append((ids, lengths))
    return [tuple(map(np.concatenate, zip(*of_text))) for of_text in parts]

  def decode(self, ids: Sequence[int]) -> str:
    """The text of the ids, without special tokens."""
    return self._tokenizer.decode([int(i) for i in ids], skip_special_tokens=True)

  def to_json(self) -> str:
    """The tokenizer.json that this came from."""
    return self._text

  def save(self, directory: str | os.PathLike) -> pathlib.Path:
    """Writes a file that load_tokenizer reads; returns its path."""
    path = pathlib.Path(directory, FILE_NAME)
    path.write_text(self.to_json(), encoding='utf-8')
    return path


Tokenizer = BytesTokenizer | HuggingFaceTokenizer


def load_tokenizer(spec: str) -> Tokenizer:
  """Loads data.tokenizer.

  Args:
    spec: 'bytes', or a path: a tokenizer.json, the folder that holds one, or what
      `to_json` returned.

  Raises:
    UserError: the file is missing or malformed, or has no end-of-sequence token.
  """
  if spec == 'bytes':
    return BytesTokenizer()
  path = pathlib.Path(spec).expanduser()
  if path.is_dir():
    path = path / FILE_NAME
  try:
    return parse_tokenizer(path.read_text(encoding='utf-8'), spec)
  except (OSError, ValueError) as error:
    reason = getattr(error, 'strerror', None) or str(error).splitlines()[0]
    raise UserError(
      f"data.tokenizer={spec!r} cannot be read ({reason}); accepted are 'bytes' and "
      'the path of a Hugging Face tokenizer.json'
    ) from error


def parse_tokenizer(text: str, path: str) -> Tokenizer:
  """The tokenizer whose `to_json` gave `text`; `path` names it in messages.

  Raises:
    ValueError: not JSON.
    UserError: not a tokenizer, or one without an end-of-sequence token.
  """
  if json.loads(text) == BYTES_MARK:
    return BytesTokenizer()
  return HuggingFaceTokenizer(text, path)


def _groups(texts: Sequence[str]) -> Iterator[list[tuple[int, str]]]:
  """(index of text, piece) in order, in lists of bounded size."""
  group, size = [], 0
  for i, text in enumerate(texts):
    for piece in _pieces(text):
      group.append((i, piece))
      size += len(piece)
      if size >= PIECE_CHARACTERS:
        yield group
        group, size = [], 0
  if group:
    yield group


def _pieces(text: str) -> Iterator[str]:
  """Cuts a long text after newlines, where tokenizers rarely merge."""
  start = 0
  while len(text) - start > PIECE_CHARACTERS:
    newline = text.rfind('\n', start, start + PIECE_CHARACTERS)
    stop = newline + 1 if newline >= start else start + PIECE_CHARACTERS
    yield text[start:stop]
    start = stop
  yield text[start:]


def _byte_lengths(text: str, offsets: Sequence[tuple[int, int]]) -> tuple[np.ndarray, int]:
  """Bytes of `text` for each token int32[n], and the bytes behind the last one.

  A token reaches from where the one before it ended to its own end. Several tokens of
  one character (bytes of a byte-level BPE) leave all its bytes to the first.
  """
  flat = np.fromiter((end for _, end in offsets), np.int64, len(offsets))
  ends = np.maximum.accumulate(flat)
  if text.isascii():
    total = len(text)
  else:
    codes = np.frombuffer(text.encode('utf-32-le'), np.uint32)
    widths = 1 + (codes >= 0x80) + (codes >= 0x800) + (codes >= 0x10000)
    position = np.concatenate([[0], np.cumsum(widths)])
    ends, total = position[ends], int(position[-1])
  lengths = np.diff(ends, prepend=0)
  return lengths.astype(np.int32), total - int(lengths.sum())
