"""TFDS builder `text_files`: any folder of text, Markdown, Python or JSON lines."""

import dataclasses
import pathlib
from collections.abc import Iterator

import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter

from elas_jax.data.bad_records import BadRecords
from elas_jax.data.file_hashes import Files
from elas_jax.data.hashing import goes_to_validation
from elas_jax.data.progress import Progress
from elas_jax.data.text_reader import Document, TextOf, read_documents, size_of

SHARD_BYTES = 1 << 28  # of text, after which the next file of a split is begun
MAX_NAME_BYTES = 512


class TextFiles(tfds.core.ShardBasedBuilder):
  """The text files of a folder, one document per file or per JSON line.

  Both splits are written in one pass, as a stream: GeneratorBasedBuilder would keep
  the corpus in memory and needs TensorFlow for more than 1 GB of it.

  Attributes:
    report: the records seen and those that could not be read.
    text_bytes: UTF-8 bytes of text per split, filled by download_and_prepare.
  """

  VERSION = tfds.core.Version('1.0.0')

  def __init__(
    self,
    *,
    files: Files,
    validation_files: Files,
    validation_share: float,
    of_line: TextOf,
    **kwargs,
  ):
    super().__init__(**kwargs)
    self._files = files
    self._validation_files = validation_files
    self._validation_share = validation_share
    self._of_line = of_line
    self.report = BadRecords()
    self.text_bytes = {'train': 0, 'validation': 0}

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description=self.__doc__,
      features=tfds.features.FeaturesDict(
        {'name': tfds.features.Text(), 'text': tfds.features.Text()}
      ),
      disable_shuffling=True,  # in the order of the files: Grain shuffles
    )

  def _shard_iterators_per_split(self, dl_manager):
    raise NotImplementedError('_download_and_prepare writes the shards itself')

  def _download_and_prepare(self, dl_manager, download_config=None) -> None:
    del dl_manager, download_config  # nothing to download
    serializer = tfds.core.ExampleSerializer(self.info.features.get_serialized_info())
    writers = {
      split: _ShardWriter(self.data_path, f'{self.name}-{split}')
      for split in self.text_bytes
    }
    for split, document in self._split_documents():
      size = len(document.text.encode())
      self.text_bytes[split] += size
      example = {
        'name': document.key.encode('utf-8', 'replace')[:MAX_NAME_BYTES],
        'text': document.text,
      }
      encoded = self.info.features.encode_example(example)
      writers[split].write(serializer.serialize_example(encoded), size)
    self.info.set_splits(
      tfds.core.SplitDict(
        [
          tfds.core.SplitInfo(
            name=split,
            shard_lengths=writer.finish(),
            num_bytes=self.text_bytes[split],
            filename_template=self._get_filename_template(split_name=split),
          )
          for split, writer in writers.items()
        ]
      )
    )

  def _split_documents(self) -> Iterator[tuple[str, Document]]:
    """(split, document) of every good record; counts the bad ones."""
    sizes = [size_of(path) for _, path in self._all_files()]
    with Progress('reading', sum(sizes)) as progress:
      for i, (name, path) in enumerate(self._all_files()):
        before = self.report.total
        for document in read_documents(name, path, self._of_line):
          self.report.count(document.size)
          if document.text is None:
            message = f'{path}{document.key[len(name) :]}: {document.error}'
            self.report.add(message, document.size, document.breaks_off)
          else:
            yield self._split_of(i, document.key), document
        self.report.empty_files += self.report.total == before
        progress.advance(sizes[i])

  def _all_files(self) -> Files:
    return self._files + self._validation_files

  def _split_of(self, file_index: int, key: str) -> str:
    if self._validation_files:
      is_validation = file_index >= len(self._files)
    else:
      is_validation = goes_to_validation(key, self._validation_share)
    return 'validation' if is_validation else 'train'


@dataclasses.dataclass
class _ShardWriter:
  """Writes the records of one split; their files are named once all are there."""

  folder: pathlib.Path
  prefix: str
  lengths: list[int] = dataclasses.field(default_factory=list)
  _writer: ArrayRecordWriter | None = None
  _bytes: int = 0

  def write(self, record: bytes, text_bytes: int) -> None:
    if self._writer is None:
      path = self._temporary(len(self.lengths))
      self._writer = ArrayRecordWriter(str(path), 'group_size:1')
      self.lengths.append(0)
      self._bytes = 0
    self._writer.write(record)
    self.lengths[-1] += 1
    self._bytes += text_bytes
    if self._bytes >= SHARD_BYTES:
      self._close()

  def finish(self) -> list[int]:
    """Gives the files their TFDS names; returns how many records each one holds."""
    self._close()
    for i in range(len(self.lengths)):
      name = f'{self.prefix}.array_record-{i:05d}-of-{len(self.lengths):05d}'
      self._temporary(i).rename(self.folder / name)
    return self.lengths

  def _close(self) -> None:
    if self._writer is not None:
      self._writer.close()
      self._writer = None

  def _temporary(self, i: int) -> pathlib.Path:
    return pathlib.Path(self.folder) / f'{self.prefix}.part-{i:05d}'
