"""Files of JSON lines: {"prompt": ..., "chosen": ..., "rejected": ...}.

data/pairs.py says what may stand there. A pair goes to validation by the hash of its prompt
up to the first answer, so that all pairs of a question are in the same split, unless
validation_path names files for it; those are then left out of training.
"""

import dataclasses
import json
import pathlib
from typing import Any

from elas_jax.common.errors import UserError
from elas_jax.common.fields import inside
from elas_jax.common.places import check_place
from elas_jax.data import pairs
from elas_jax.systems.kinds import place


@dataclasses.dataclass(frozen=True)
class Pairs:
  """Pairs of one's own, or of `python -m elas_jax.pairs`."""

  path: str = place()  # folder, file or glob of .jsonl; must be given
  validation_path: str = place()  # the same for the validation split; '' = split by hash
  validation_share: float = 0.05  # of the questions, that the hash sends there (ours)

  def check(self, where: str, config: Any) -> None:
    if not self.path:
      raise UserError(f"{where}.path='': pairs needs a folder, a file or a glob")
    check_place(f'{where}.path', self.path)
    check_place(f'{where}.validation_path', self.validation_path)
    inside(where, self, 'validation_share')

  def pairs(self, data: Any, tokenizer: Any) -> pairs.PreparedPairs:
    return pairs.prepare(self, data, tokenizer)

  def answers(self) -> bool:
    """That a prompt is a message that is answered."""
    return True

  def label(self) -> str:
    return 'pairs'

  def shown(self) -> str:
    return f"data.source='pairs' data.source.path={self.path!r}"


def CASES(folder: pathlib.Path) -> tuple[Pairs, ...]:
  """Of files that are written to `folder`."""
  for name, numbers in (('train', range(20)), ('held_out', range(20, 24))):
    lines = [
      {'prompt': f'{n} + 1 = ?', 'chosen': f'{n + 1}', 'rejected': f'{n}'} for n in numbers
    ]
    text = '\n'.join(map(json.dumps, lines))
    (folder / f'{name}.jsonl').write_text(text + '\n')
  return (
    Pairs(str(folder), validation_share=0.3),
    Pairs(str(folder), validation_path=str(folder / 'held_out.jsonl')),
  )


# No truth in numbers: tests/data/pairs_test.py compares the tokens with the files.
