"""Several prepared corpora as one: their blocks, by phases, and the record of them."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from elas_jax.data.block_set import BlockSet
from elas_jax.data.hashing import fingerprint
from elas_jax.data.mixed_order import MixedOrder, Phase
from elas_jax.data.record import SPLITS, Record
from elas_jax.data.tokenizers import Tokenizer


class MixedSet:
  """The blocks of one split of several sources, as of a block_set.BlockSet.

  Attributes:
    parts: the sources' own sets, by name.
    blocks, tokens, bytes, max_token_id, documents, text_bytes, empty, lost_bytes:
      totals, as of a BlockSet.
    fingerprint: of the sources' names and of all rows.
  """

  def __init__(self, parts: Mapping[str, BlockSet], phases: Sequence[Phase]):
    self.parts, self._phases = dict(parts), tuple(phases)
    sets = list(self.parts.values())
    self._starts = np.cumsum([0, *map(len, sets)])
    self.sequence_length, self.unit = sets[0].sequence_length, sets[0].unit
    self.blocks = int(self._starts[-1])
    names = 'tokens bytes documents text_bytes empty lost_bytes'
    for name in names.split():
      setattr(self, name, sum(getattr(part, name) for part in sets))
    self.max_token_id = max(part.max_token_id for part in sets)
    self.fingerprint = fingerprint([[x, of.fingerprint] for x, of in self.parts.items()])

  def __len__(self) -> int:
    return self.blocks

  @property
  def lost_share(self) -> float:
    """The share of the text that the tokenizer does not know."""
    return self.lost_bytes / max(1, self.text_bytes)

  def with_segments(self, eos_id: int) -> 'MixedSet':
    """The same packed rows, whose blocks say where in them documents begin."""
    told = {name: part.with_segments(eos_id) for name, part in self.parts.items()}
    return MixedSet(told, self._phases)

  def read(self, indices: Sequence[int]) -> dict[str, np.ndarray]:
    """A batch of blocks, as BlockSet.read; those of a source follow the one before it."""
    indices = np.asarray(indices, np.int64)
    if len(indices) and not 0 <= indices.min() <= indices.max() < self.blocks:
      raise IndexError(f'block numbers are in [0, {self.blocks})')
    of_part = np.searchsorted(self._starts, indices, side='right') - 1
    found = {}
    sets = list(self.parts.values())
    for number in np.unique(of_part) if len(indices) else [0]:
      (places,) = np.nonzero(of_part == number)
      for name, rows in sets[number].read(indices[places] - self._starts[number]).items():
        if name not in found:
          found[name] = np.empty((len(indices), *rows.shape[1:]), rows.dtype)
        found[name][places] = rows
    return found

  def order(self, batch_size: int) -> MixedOrder:
    """In which the phases of training ask for the blocks."""
    return MixedOrder([len(x) for x in self.parts.values()], self._phases, batch_size)

  @functools.cached_property
  def spread(self) -> np.ndarray:
    """The numbers of all blocks, each source's spread evenly over the others'."""
    sizes = [len(part) for part in self.parts.values()]
    share = np.concatenate([(np.arange(size) + 0.5) / size for size in sizes])
    return np.argsort(share, kind='stable')


@dataclasses.dataclass(frozen=True)
class MixedData:
  """What training and evaluation read, as blocks.Prepared.

  Attributes:
    parts: a blocks.Prepared of each source, by name.
    tokenizer: made all of them.
    phases: of training.
  """

  parts: dict[str, Any]
  tokenizer: Tokenizer
  phases: tuple[Phase, ...]

  @functools.cached_property
  def train(self) -> MixedSet:
    return self._mixed('train')

  @functools.cached_property
  def validation(self) -> MixedSet:
    return self._mixed('validation')

  def _mixed(self, split: str) -> MixedSet:
    parts = {name: getattr(part, split) for name, part in self.parts.items()}
    return MixedSet(parts, self.phases)

  def notes(self) -> list[str]:
    """What a user should know of the text that is not there, for the terminal."""
    own = set(self.tokenizer.notes)
    notes = [(x, line) for x, of in self.parts.items() for line in of.notes()]
    said = [f'{name}: {line}' for name, line in notes if line not in own]
    return [*self.tokenizer.notes, *said]

  def with_segments(self) -> 'MixedData':
    """The same, whose packed rows say where in them documents begin."""
    told = {name: part.with_segments() for name, part in self.parts.items()}
    return dataclasses.replace(self, parts=told)

  def describe(self) -> dict[str, Any]:
    """What a model needs of its data wherever it is used, as JSON: the tokenizer."""
    return next(iter(self.parts.values())).describe()

  def record(self) -> Record:
    """By what a continued run knows its data again."""
    totals = ('fingerprint', 'documents', 'blocks', 'tokens')
    splits = {
      split: {name: getattr(getattr(self, split), name) for name in totals}
      for split in SPLITS
    }
    parts = {name: part.record() for name, part in self.parts.items()}
    return {'source': 'mixture', 'splits': splits, 'parts': parts}
