"""Counts documents of the validation split that are in the train split as well."""

import hashlib
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np


def document_hashes(documents: Iterable[bytes]) -> np.ndarray:
  """uint64[n]."""
  hashes = [
    int.from_bytes(hashlib.blake2b(document, digest_size=8).digest(), 'little')
    for document in documents
  ]
  return np.array(hashes, np.uint64)


def count_shared(train: Sequence[pathlib.Path], validation: Sequence[pathlib.Path]) -> int:
  """How many hashes in the files of `validation` are in those of `train`.

  All of the validation split, eight bytes a document, and one file of the other are in
  memory at a time.
  """
  read = lambda path: np.fromfile(path, np.uint64)
  held_out = np.concatenate([read(path) for path in validation])
  found = np.zeros(len(held_out), bool)
  for path in train:
    found |= np.isin(held_out, read(path))
  return int(found.sum())


def note(count: int, what: str, of: int) -> list[str]:
  """The line for the summary, if there is one."""
  if not count:
    return []
  return [
    f'{count} of {of} {what} of the validation split are equal to some of the train split'
  ]
