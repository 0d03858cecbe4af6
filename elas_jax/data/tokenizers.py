"""Tokenizers: bytes, or a Hugging Face tokenizer.json.

Both classes offer the same: vocab_size (largest usable id + 1), eos_id, fingerprint,
notes (what a user should know), chat_template (Jinja, '' if it has none: see chat.py),
encode, encode_batch, decode, id_of and to_json. An encoding is a pair (ids, byte_lengths):
the token ids uint32[n], without special tokens, and int32[n], how many UTF-8 bytes of the
text each token holds. Text that normalisation or splitting
skips counts for the next token; what remains at the end counts for the end-of-sequence
token that encode_documents adds. So bits per byte are comparable between tokenizers that
lose no text.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from elas_jax.common.errors import UserError
from elas_jax.common.places import place
from elas_jax.data import token_bytes
from elas_jax.data.packing import Encoding, Piece
from elas_jax.data.template_files import with_template, without_template

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
  notes = ()
  chat_template = ''

  def encode(self, text: str) -> Encoding:
    """(ids, byte_lengths) of the text."""
    ids = np.frombuffer(text.encode(), np.uint8).astype(np.uint32)
    return ids, np.ones(len(ids), np.int32)

  def encode_batch(self, texts: Sequence[str]) -> tuple[list[Encoding], int]:
    """One encoding for each text, and the bytes of text that are lost in them: 0."""
    return [self.encode(text) for text in texts], 0

  def decode(self, ids: Sequence[int]) -> str:
    """The text of the ids without special ones; broken UTF-8 becomes U+FFFD."""
    return bytes(i for i in map(int, ids) if i < 256).decode('utf-8', 'replace')

  def id_of(self, token: str) -> int | None:
    """The id of a token by its name: bytes have none."""
    return None

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
    self._path = path
    own, self.chat_template = without_template(text)
    try:
      self._tokenizer = tokenizers.Tokenizer.from_str(own)
    except Exception as error:  # the library raises plain Exception
      reason = str(error).splitlines()[0]
      raise UserError(
        f'data.tokenizer.path={path!r} is no tokenizer.json of Hugging Face ({reason}); '
        "data.tokenizer='bytes' needs no file"
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
        f'data.tokenizer.path={path!r} has no token that ends a document; accepted are '
        f'{" ".join(END_TOKENS)}'
      )
    self.eos_id = ends[0]
    self.vocab_size = max(vocabulary.values()) + 1
    # Of the content, however it is laid out: a checkpoint keeps no more than that.
    same = json.dumps(json.loads(own), sort_keys=True)
    self.fingerprint = hashlib.sha256(same.encode()).hexdigest()
    self.notes = self._without_dropout()
    self._read_model(vocabulary)

  def _without_dropout(self) -> tuple[str, ...]:
    """Switches off the dropout of BPE, which splits a text differently every time."""
    rate = getattr(self._tokenizer.model, 'dropout', None)
    if not rate:
      return ()
    self._tokenizer.model.dropout = None
    return (
      f'data.tokenizer.path={self._path!r}: its BPE dropout of {rate:g} is switched off',
    )

  def _read_model(self, vocabulary: dict[str, int]) -> None:
    """What the file says about bytes and unknown words."""
    settings = json.loads(self._text)
    model = settings['model']
    unknown = model.get('unk_id', vocabulary.get(model.get('unk_token')))
    self._unknown_id = -1 if unknown is None else unknown
    steps = [settings.get('normalizer'), settings.get('pre_tokenizer')]
    is_byte_level = 'ByteLevel' in _kinds(steps)
    # Then its tokens hold the bytes of the text itself and no others.
    self._is_exact = is_byte_level and not _kinds(steps[:1]) - {'Sequence', 'ByteLevel'}
    self._sizes = token_bytes.token_sizes(
      vocabulary,
      added=[token['content'] for token in settings.get('added_tokens') or ()],
      is_byte_level=is_byte_level,
      prefix=model.get('continuing_subword_prefix') or '',
      suffix=model.get('end_of_word_suffix') or '',
    )

  def encode(self, text: str) -> Encoding:
    """(ids, byte_lengths) of the text."""
    return self.encode_batch([text])[0][0]

  def encode_batch(self, texts: Sequence[str]) -> tuple[list[Encoding], int]:
    """One encoding for each text, and the bytes of text that are lost in them.

    Lost is what becomes the token of unknown words, or none: see token_bytes.py.

    Raises:
      UserError: the tokenizer cannot encode the text.
    """
    try:
      encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
    except Exception as error:  # the library raises plain Exception
      reason = str(error).splitlines()[0]
      raise UserError(
        f'data.tokenizer.path={self._path!r} cannot encode the text ({reason}); it needs a '
        'token of unknown words'
      ) from error
    found = [self._bytes_of(*pair) for pair in zip(texts, encodings)]
    return [(ids, lengths) for ids, lengths, _ in found], sum(lost for *_, lost in found)

  def _bytes_of(self, text: str, encoding) -> tuple[np.ndarray, np.ndarray, int]:
    """(ids, byte_lengths, bytes that are lost)."""
    ids = np.array(encoding.ids, np.uint32)
    sizes = self._sizes[ids]
    if self._is_exact and sizes.sum() == len(text.encode()):
      # Offsets would say the same, and take longer to get.
      return ids, sizes.astype(np.int32), 0
    offsets = token_bytes.offset_array(encoding.offsets)
    lengths = token_bytes.byte_lengths(text, offsets, sizes)
    return ids, lengths, token_bytes.lost_bytes(text, offsets, ids != self._unknown_id)

  def decode(self, ids: Sequence[int]) -> str:
    """The text of the ids, without special tokens."""
    return self._tokenizer.decode([int(i) for i in ids], skip_special_tokens=True)

  def id_of(self, token: str) -> int | None:
    """The id of a token by its name; None if there is no such token."""
    return self._tokenizer.token_to_id(token)

  def to_json(self) -> str:
    """The tokenizer.json that this came from, and its chat_template."""
    return self._text

  def save(self, directory: str | os.PathLike) -> pathlib.Path:
    """Writes a file that load_tokenizer reads; returns its path."""
    path = pathlib.Path(directory, FILE_NAME)
    path.write_text(self.to_json(), encoding='utf-8')
    return path


Tokenizer = BytesTokenizer | HuggingFaceTokenizer


def load_tokenizer(path: str) -> Tokenizer:
  """Loads a tokenizer.

  Args:
    path: of a tokenizer.json, of the folder that holds one, or of what `to_json` returned;
      '' for bytes.

  Raises:
    UserError: the file is missing or malformed, or has no end-of-sequence token.
  """
  if not path:
    return BytesTokenizer()
  try:
    file = _file(path)
    return parse_tokenizer(with_template(file.read_text(encoding='utf-8'), file), path)
  except (OSError, ValueError, RecursionError) as error:
    reason = getattr(error, 'strerror', None) or str(error).splitlines()[0]
    is_missing = isinstance(error, FileNotFoundError)
    maker = '; the head of a config file that names one says what makes it'
    raise UserError(
      f'data.tokenizer.path={path!r} cannot be read ({reason}); accepted is the path of a '
      f"Hugging Face tokenizer.json{maker if is_missing else ''}; data.tokenizer='bytes' "
      'needs none'
    ) from error


def is_there(path: str) -> bool:
  """Whether a path that `load_tokenizer` takes names something, readable or not."""
  return not path or os.path.lexists(_file(path))


def _file(path: str) -> pathlib.Path:
  found = place('data.tokenizer.path', path)
  return found / FILE_NAME if os.path.isdir(found) else found


def parse_tokenizer(text: str, path: str) -> Tokenizer:
  """The tokenizer whose `to_json` gave `text`; `path` names it in messages.

  Raises:
    ValueError, RecursionError: not JSON, or nested too deeply.
    UserError: not a tokenizer, or one without an end-of-sequence token.
  """
  if json.loads(text) == BYTES_MARK:
    return BytesTokenizer()
  return HuggingFaceTokenizer(text, path)


def encode_documents(
  tokenizer: Tokenizer, texts: Sequence[str]
) -> Iterator[tuple[list[Piece], int]]:
  """Yields (pieces of documents, bytes of text that are lost in them).

  A list is of about PIECE_CHARACTERS, so that a long document takes no more memory. The
  last piece of each document has the end-of-sequence token, which takes the bytes that
  no other token has.
  """
  skipped = 0  # bytes of the document that the next token takes
  for group in _groups(texts):
    encodings, lost = tokenizer.encode_batch([text for text, _ in group])
    pieces = []
    for (text, is_last), (ids, lengths) in zip(group, encodings):
      remainder = len(text.encode()) - int(lengths.sum())
      if len(lengths):
        lengths[0] += skipped
        skipped = 0
      skipped += remainder
      if is_last:
        ids = np.append(ids, np.uint32(tokenizer.eos_id))
        lengths = np.append(lengths, np.int32(skipped))
        skipped = 0
      pieces.append(Piece(ids, lengths, is_last))
    yield pieces, lost


def _groups(texts: Sequence[str]) -> Iterator[list[tuple[str, bool]]]:
  """(piece, whether it is the last of its text) in order, in lists of bounded size."""
  group, size = [], 0
  for text in texts:
    pieces = list(_pieces(text))
    for i, piece in enumerate(pieces, start=1):
      group.append((piece, i == len(pieces)))
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


def _kinds(settings: object) -> set[str]:
  """The names of all steps of a normaliser or pre-tokenizer, nested ones too."""
  if isinstance(settings, list):
    return set().union(*map(_kinds, settings))
  if isinstance(settings, dict):
    return {settings.get('type')}.union(*map(_kinds, settings.values())) - {None}
  return set()
