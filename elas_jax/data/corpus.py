"""What the preparation of a corpus is told: plain values, also for its processes."""

import dataclasses
from typing import Any

from elas_jax.common.errors import UserError
from elas_jax.common.fields import at_least, fraction
from elas_jax.common.places import check_place
from elas_jax.data.mixed_order import Phase

OWN_SOURCES = ('python_source', 'text_files', 'chat')
OF_FILES = ('text_files', 'chat')  # of a path that is a folder, a file or a glob


@dataclasses.dataclass(frozen=True)
class Corpus:
  """Documents, how they are split, and the rows of tokens that are made of them.

  Attributes:
    source: of OWN_SOURCES, or the name of a prepared TFDS set ('c4/en').
    max_bad_share: the largest share of unreadable records, or bytes, that is accepted.
    tokenizer: the path of a tokenizer.json; '' for bytes.
    protocol: a name of data/packing.py:PROTOCOLS.
    sequence_length: L.
    cache_dir: of prepared documents and token blocks.
    processes: that prepare, 0 = one for each core.
    path: of files: folder, file or glob; TFDS set: its data_dir ('' = TFDS's).
    validation_path: of files: of the validation split; '' = split by hash.
    validation_share: own sources: of the documents that the hash sends to validation.
    counted: chat: a name of data/chat_rows.py:COUNTED, '' for documents.
  """

  source: str
  max_bad_share: float
  tokenizer: str
  protocol: str
  sequence_length: int
  cache_dir: str
  processes: int
  path: str = ''
  validation_path: str = ''
  validation_share: float = 0.0
  counted: str = ''

  @property
  def named(self) -> str:
    """The field of the config that names it, and its value, for messages."""
    field = 'data.source' if self.source in OWN_SOURCES else 'data.source.name'
    return f'{field}={self.source!r}'

  @property
  def where(self) -> str:
    """The same, and where it is."""
    if self.source == 'python_source':
      return self.named
    field = 'path' if self.source in OF_FILES else 'data_dir'
    return f'{self.named} data.source.{field}={self.path!r}'


@dataclasses.dataclass(frozen=True)
class Mixed:
  """Corpora by name, of the same tokenizer and length, and how training mixes them."""

  corpora: dict[str, Corpus]
  phases: tuple[Phase, ...]

  named = "data.source='mixture'"

  @property
  def tokenizer(self) -> str:
    return next(iter(self.corpora.values())).tokenizer

  @property
  def max_bad_share(self) -> float:
    return next(iter(self.corpora.values())).max_bad_share


def by_name(corpus: Corpus | Mixed) -> dict[str, Corpus]:
  """The corpora of a mixture, or the only one, which has no name."""
  return corpus.corpora if isinstance(corpus, Mixed) else {'': corpus}


def corpus_of(data: Any, source: str, **fields: Any) -> Corpus:
  """The corpus `source` with these fields, prepared as the config's section `data` says."""
  return Corpus(
    source=source,
    max_bad_share=data.max_bad_share,
    tokenizer=data.tokenizer.file(),
    protocol=data.protocol,
    sequence_length=data.sequence_length,
    cache_dir=data.cache_dir,
    processes=data.processes,
    **fields,
  )


def check_preparation(data: Any) -> None:
  """Refuses what cannot be in the fields of a section `data` that say how to prepare."""
  at_least(1, 'data', data, 'sequence_length')
  at_least(0, 'data', data, 'processes')
  fraction('data', data, 'max_bad_share')
  if not data.cache_dir:
    raise UserError("data.cache_dir='': must not be empty")
  check_place('data.cache_dir', data.cache_dir)
