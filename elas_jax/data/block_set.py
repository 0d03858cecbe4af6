"""Random access to prepared token blocks."""

import dataclasses
import pathlib
import threading
from collections.abc import Sequence

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader

from elas_jax.common.errors import UserError
from elas_jax.data import cache, chat_rows
from elas_jax.data.hashing import fingerprint
from elas_jax.data.packing import row_dtype, segments

# Sixteen blocks share a chunk: reading one decodes at most sixteen, and the index that
# a reader holds in memory is a sixteenth. Uncompressed reads twice as fast as zstd.
WRITER_OPTIONS = 'group_size:16,uncompressed'
# Readahead is for sequential readers; this one is asked for random blocks.
READER_OPTIONS = 'readahead_buffer_size:0'


@dataclasses.dataclass(frozen=True)
class Shard:
  """One file of blocks and its totals.

  Attributes:
    file: name inside of the folder of the blocks.
    blocks: rows of L+1 tokens.
    tokens: predicted targets, the sum of the blocks' `valid`.
    bytes: bytes of text that those targets cover.
    max_token_id: the largest id in the file.
    documents: documents that were read for it.
    text_bytes: all their text, also what the `document` protocol cuts off.
    fingerprint: of the rows.
    empty: documents without text.
    lost_bytes: of their text, what the tokenizer does not know.
    unreadable: documents that are left out, since they are not UTF-8.
    unreadable_bytes: of these.
    left_out: conversations of which no answer fits into a row.
    shortened: conversations that are cut behind an answer.
  """

  file: str
  blocks: int
  tokens: int
  bytes: int
  max_token_id: int
  documents: int
  text_bytes: int
  fingerprint: str
  empty: int = dataclasses.field(default=0, kw_only=True)
  lost_bytes: int = dataclasses.field(default=0, kw_only=True)
  unreadable: int = dataclasses.field(default=0, kw_only=True)
  unreadable_bytes: int = dataclasses.field(default=0, kw_only=True)
  left_out: int = dataclasses.field(default=0, kw_only=True)
  shortened: int = dataclasses.field(default=0, kw_only=True)


def dtype_of(sequence_length: int, vocab_size: int, counted: str) -> np.dtype:
  """The layout of the rows of a corpus, whose `counted` says if it is of conversations."""
  of_rows = chat_rows.dtype_of if counted else row_dtype
  return of_rows(sequence_length, vocab_size)


class BlockSet:
  """The blocks of one split, read from the disk as they are asked for.

  Attributes:
    sequence_length: L.
    blocks, tokens, bytes, max_token_id, documents, text_bytes, empty, lost_bytes, left_out,
      shortened: totals, as of a Shard.
    fingerprint: of all rows in their order.
  """

  def __init__(
    self,
    folder: pathlib.Path,
    shards: Sequence[Shard],
    dtype: np.dtype,
    eos_id: int | None = None,
  ):
    self._folder, self._eos_id = folder, eos_id
    self._all_shards = shards
    self._shards = [shard for shard in shards if shard.blocks]
    self._dtype = dtype
    # Where each shard starts, and the total at the end.
    self._starts = np.cumsum([0, *(shard.blocks for shard in self._shards)])
    self._readers = [None] * len(self._shards)
    self._lock = threading.Lock()
    self.sequence_length = dtype['tokens'].shape[0] - 1
    self.blocks = int(self._starts[-1])
    self.tokens = sum(shard.tokens for shard in shards)
    self.bytes = sum(shard.bytes for shard in shards)
    self.max_token_id = max((shard.max_token_id for shard in shards), default=0)
    self.documents = sum(shard.documents for shard in shards)
    self.text_bytes = sum(shard.text_bytes for shard in shards)
    self.empty = sum(shard.empty for shard in shards)
    self.lost_bytes = sum(shard.lost_bytes for shard in shards)
    self.left_out = sum(shard.left_out for shard in shards)
    self.shortened = sum(shard.shortened for shard in shards)
    self.fingerprint = fingerprint([shard.fingerprint for shard in self._shards])

  def with_segments(self, eos_id: int) -> 'BlockSet':
    """The same packed rows, whose blocks say where in them documents begin."""
    return BlockSet(self._folder, self._all_shards, self._dtype, eos_id)

  def __len__(self) -> int:
    return self.blocks

  @property
  def lost_share(self) -> float:
    """The share of the text that the tokenizer does not know."""
    return self.lost_bytes / max(1, self.text_bytes)

  @property
  def unit(self) -> str:
    return f'blocks of data.sequence_length={self.sequence_length}'

  def __getitem__(self, index: int) -> dict[str, np.ndarray]:
    """One block, as of `read`, without its first axis."""
    return {name: value[0] for name, value in self.read([index]).items()}

  def read(self, indices: Sequence[int]) -> dict[str, np.ndarray]:
    """A batch of blocks in the given order.

    Args:
      indices: b numbers in [0, len(self)).

    Returns:
      tokens int32[b, L+1], valid int32[b], bytes int32[b]; from `with_segments` also
      segments int32[b, L], of packing.segments. Of conversations also answers
      int32[b, L], 1 where a target counts.
    """
    indices = np.asarray(indices, np.int64)
    if len(indices) and not 0 <= indices.min() <= indices.max() < self.blocks:
      raise IndexError(f'block numbers are in [0, {self.blocks})')
    rows = np.empty(len(indices), self._dtype)
    of_shard = np.searchsorted(self._starts, indices, side='right') - 1
    for shard in np.unique(of_shard):
      (places,) = np.nonzero(of_shard == shard)
      local = (indices[places] - self._starts[shard]).tolist()
      try:
        records = self._reader(shard).read(local)
      except RuntimeError as error:  # of ArrayRecord, whose chunks carry hashes
        raise self._damaged(shard, str(error).split(' (')[0]) from error
      rows[places] = np.frombuffer(b''.join(records), self._dtype)
    found = {name: rows[name].astype(np.int32) for name in self._dtype.names}
    own = found.pop('segments', None)
    if self._eos_id is not None:
      found['segments'] = segments(found['tokens'], self._eos_id) if own is None else own
    return found

  def _reader(self, shard: int) -> ArrayRecordReader:
    """The open reader of a shard; one serves all threads."""
    with self._lock:
      if self._readers[shard] is None:
        path = self._folder / self._shards[shard].file
        reader = ArrayRecordReader(str(path), options=READER_OPTIONS)
        # Of a file that it cannot open it says that there is nothing in it.
        if reader.num_records() != self._shards[shard].blocks:
          raise self._damaged(shard, f'{reader.num_records()} blocks in it')
        self._readers[shard] = reader
      return self._readers[shard]

  def _damaged(self, shard: int, why: str) -> UserError:
    return cache.damaged(self._folder, self._folder / self._shards[shard].file, why)
