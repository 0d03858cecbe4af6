"""The bytes of UTF-8: ids 0..255 are bytes, 256 ends a document; 257 in all."""

import dataclasses
from typing import Any

import numpy as np

from elas_jax.data.tokenizers import BytesTokenizer, load_tokenizer


@dataclasses.dataclass(frozen=True)
class Bytes:
  """One token for each byte."""

  def check(self, where: str, config: Any) -> None:
    """Nothing can be wrong."""

  def load(self) -> BytesTokenizer:
    return load_tokenizer(self.file())

  def is_there(self) -> bool:
    return True

  def file(self) -> str:
    return ''

  def label(self) -> str:
    return 'bytes'

  def shown(self) -> str:
    return "data.tokenizer='bytes'"


CASES = (Bytes(),)


def truth(kind: Bytes, text: str) -> np.ndarray:
  """The ids of a text."""
  return np.array([byte for letter in text for byte in letter.encode('utf-8')])
