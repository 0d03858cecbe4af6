"""TFDS builder `python_source`: the standard library of the running interpreter.

A small real corpus (about 12 MB of Python) that every machine already has.
"""

import tokenize
from collections.abc import Iterator

import tensorflow_datasets as tfds

from elas_jax.data import standard_library, text_reader
from elas_jax.data.bad_records import BadRecords
from elas_jax.data.hashing import goes_to_validation
from elas_jax.data.progress import Progress


class PythonSource(tfds.core.GeneratorBasedBuilder):
  """The interpreter's standard library, one document per .py file, without tests.

  Attributes:
    report: the files seen and those that could not be decoded.
    text_bytes: UTF-8 bytes of text per split, filled by download_and_prepare.
  """

  VERSION = tfds.core.Version('1.0.0')

  def __init__(self, *, validation_share: float, **kwargs):
    super().__init__(**kwargs)
    self._validation_share = validation_share
    self.report = BadRecords()
    self.text_bytes = {'train': 0, 'validation': 0}

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description=self.__doc__,
      features=tfds.features.FeaturesDict(
        {'name': tfds.features.Text(), 'text': tfds.features.Text()}
      ),
      disable_shuffling=True,  # sorted by name: Grain shuffles, not the file
    )

  def _split_generators(self, dl_manager) -> dict[str, Iterator]:
    del dl_manager  # nothing to download
    return {split: self._generate_examples(split) for split in self.text_bytes}

  def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, str]]]:
    files = [
      (name, path)
      for name, path in standard_library.list_files()
      if goes_to_validation(name, self._validation_share) == (split == 'validation')
    ]
    with Progress(f'reading {split}', 0) as progress:
      for i, (name, path) in enumerate(files):
        self.report.count(text_reader.size_of(path))
        try:
          # tokenize.open honours the coding cookie and makes every newline a \n.
          with tokenize.open(path) as file:
            text = file.read()
        except (OSError, SyntaxError, UnicodeDecodeError) as error:
          self.report.add(f'{name}: {error}', text_reader.size_of(path))
          continue
        size = len(text.encode())
        self.text_bytes[split] += size
        progress.advance(size)
        yield i, {'name': name, 'text': text}
