"""A tokenizer.json of Hugging Face: BPE, Unigram, WordPiece, as published or trained here.

`python -m elas_jax.data.train_tokenizer` makes one. Its vocabulary needs a token that ends
a document, one of data/tokenizers.py:END_TOKENS.
"""

import dataclasses
import pathlib
from typing import Any

from elas_jax.common.errors import UserError
from elas_jax.common.places import check_place
from elas_jax.data.tokenizers import Tokenizer, is_there, load_tokenizer
from elas_jax.systems.kinds import place


@dataclasses.dataclass(frozen=True)
class File:
  """The tokenizer of a file."""

  path: str = place()  # of the tokenizer.json, or of its folder; must be given

  def check(self, where: str, config: Any) -> None:
    if not self.path:
      raise UserError(f"{where}.path='': file needs the path of a tokenizer.json")
    check_place(f'{where}.path', self.path)

  def load(self) -> Tokenizer:
    return load_tokenizer(self.path)

  def is_there(self) -> bool:
    return is_there(self.path)

  def file(self) -> str:
    return self.path

  def label(self) -> str:
    return self.path

  def shown(self) -> str:
    return f'data.tokenizer.path={self.path!r}'


def CASES(folder: pathlib.Path) -> tuple[File, ...]:
  """Of a tokenizer that is written to `folder`."""
  import tokenizers

  words = {word: i for i, word in enumerate(('[UNK]', '</s>', 'the', 'quick', 'fox'))}
  made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token='[UNK]'))
  made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
  made.save(str(folder / 'tokenizer.json'))
  return (File(str(folder / 'tokenizer.json')), File(str(folder)))


# No truth of our own: the library that defines the format encodes. What we add, how many
# bytes each token holds, is compared with counts by hand in tests/data/token_bytes_test.py.
