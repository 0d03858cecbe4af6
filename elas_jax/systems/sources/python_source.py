"""The standard library of the running Python, one document per file: no download.

About 12 MB of text. A file goes to validation by the hash of its name. Its tests are left
out, as distributions differ in them: data/standard_library.py lists the files.
"""

import dataclasses
from typing import Any

from elas_jax.common.fields import inside
from elas_jax.data.corpus import Corpus, corpus_of


@dataclasses.dataclass(frozen=True)
class PythonSource:
  """The library that comes with Python."""

  validation_share: float = 0.05  # of the files, that the hash sends to validation (ours)

  def check(self, where: str, config: Any) -> None:
    inside(where, self, 'validation_share')

  def corpus(self, data: Any) -> Corpus:
    return corpus_of(data, self.label(), validation_share=self.validation_share)

  def label(self) -> str:
    return 'python_source'

  def shown(self) -> str:
    return "data.source='python_source'"


CASES = (PythonSource(validation_share=0.2),)

# No truth in numbers: tests/data/sources_test.py compares the documents with the files.
