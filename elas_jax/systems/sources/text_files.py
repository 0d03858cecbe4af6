"""A folder, file or glob of text, Markdown, Python or JSON lines, packed or not.

A document is a file or a line of JSON with a string `text`. A document goes to validation
by the hash of its name, so that a new file moves no other one, unless validation_path
names files for it; those are then left out of training. data/text_reader.py reads them.
"""

import dataclasses
import pathlib
from typing import Any

from elas_jax.common.errors import UserError
from elas_jax.common.fields import inside
from elas_jax.common.places import check_place
from elas_jax.data.corpus import Corpus, corpus_of
from elas_jax.systems.kinds import place


@dataclasses.dataclass(frozen=True)
class TextFiles:
  """Text files of one's own."""

  path: str = place()  # folder, file or glob; must be given
  validation_path: str = place()  # the same for the validation split; '' = split by hash
  validation_share: float = 0.05  # of the documents, that the hash sends there (ours)

  def check(self, where: str, config: Any) -> None:
    if not self.path:
      raise UserError(f"{where}.path='': text_files needs a folder, a file or a glob")
    check_place(f'{where}.path', self.path)
    check_place(f'{where}.validation_path', self.validation_path)
    inside(where, self, 'validation_share')

  def corpus(self, data: Any) -> Corpus:
    return corpus_of(data, self.label(), **dataclasses.asdict(self))

  def label(self) -> str:
    return 'text_files'

  def shown(self) -> str:
    return f"data.source='text_files' data.source.path={self.path!r}"


def CASES(folder: pathlib.Path) -> tuple[TextFiles, ...]:
  """Of files that are written to `folder`."""
  for i in range(12):
    (folder / f'{i:02d}.txt').write_text(f'the quick brown fox jumps {i} times\n' * 4)
  held_out = folder / 'held_out.jsonl'
  held_out.write_text('{"text": "over the lazy dog, and over the fence"}\n')
  return (
    TextFiles(str(folder), validation_share=0.3),
    TextFiles(str(folder / '*.txt'), validation_path=str(held_out)),
  )


# No truth in numbers: tests/data/sources_test.py compares the documents with the files.
