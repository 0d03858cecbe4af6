"""A set of documents of TensorFlow Datasets, such as c4/en or lm1b, prepared on the disk.

It needs a string feature `text`, a split `train`, and `validation` or, without that,
`test`. data/catalogue.py finds and opens it without running its code.
"""

import dataclasses
import pathlib
from typing import Any

from elas_jax.common.errors import UserError
from elas_jax.common.places import check_place
from elas_jax.data.catalogue import check_name
from elas_jax.data.corpus import OWN_SOURCES, Corpus, corpus_of
from elas_jax.data.tiny_set import write_set
from elas_jax.systems.kinds import place


@dataclasses.dataclass(frozen=True)
class Tfds:
  """A prepared set of the catalogue."""

  name: str = 'c4/en'  # SET or SET/CONFIG; the default is what the papers train on
  data_dir: str = place()  # where TFDS keeps its sets, '' = its own default

  def check(self, where: str, config: Any) -> None:
    if self.name in OWN_SOURCES:  # records would take one for the other
      raise UserError(
        f'{where}.name={self.name!r}: is no TFDS set but a kind of {where}; give '
        f'{where}={self.name}'
      )
    check_name(f'{where}.name', self.name)
    check_place(f'{where}.data_dir', self.data_dir)

  def corpus(self, data: Any) -> Corpus:
    return corpus_of(data, self.name, path=self.data_dir)

  def label(self) -> str:
    return self.name

  def shown(self) -> str:
    return f'data.source.name={self.name!r}'


def CASES(folder: pathlib.Path) -> tuple[Tfds, ...]:
  """Of a set that is prepared in `folder`."""
  from tensorflow_datasets import features

  examples = [{'text': f'the quick brown fox jumps {i} times'} for i in range(8)]
  splits = {'train': examples[:6], 'test': examples[6:]}
  write_set(folder, 'tiny_text', {'text': features.Text()}, splits)
  return (Tfds('tiny_text', str(folder)),)


# No truth in numbers: tests/data/catalogue_test.py compares the documents with the set's.
