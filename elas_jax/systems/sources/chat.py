"""Conversations for supervised fine-tuning: JSON lines of {"messages": [...]}.

A message has a role, system, user or assistant, and a content. The tokenizer's chat
template makes one text of them (data/chat.py), of which the loss counts what the assistant
says: the prompts are read and not learned. Perplexity, bits per byte and measures are of
that too.

Protocol `packed` puts several conversations into a row, kept apart by data.document_mask,
`document` one. None is cut inside of an answer; what has no answer that ends within a row
is left out and counted. A conversation goes to validation by the hash of its line's name,
unless validation_path names files for it. Lines that hold none count as unreadable.
"""

import dataclasses
import json
import pathlib
from typing import Any, Literal

from elas_jax.common.errors import UserError
from elas_jax.common.fields import choice, inside
from elas_jax.common.places import check_place
from elas_jax.data.chat_rows import COUNTED
from elas_jax.data.corpus import Corpus, corpus_of
from elas_jax.systems.kinds import place


@dataclasses.dataclass(frozen=True)
class Chat:
  """Conversations of one's own."""

  path: str = place()  # folder, file or glob of JSON lines; must be given
  validation_path: str = place()  # the same for the validation split; '' = split by hash
  validation_share: float = 0.05  # of the lines, that the hash sends there (ours)
  # Targets of the loss: all answers, the last one of each conversation, or all tokens.
  counted: Literal[COUNTED] = 'answers'

  def check(self, where: str, config: Any) -> None:
    if not self.path:
      raise UserError(f"{where}.path='': chat needs a folder, a file or a glob")
    check_place(f'{where}.path', self.path)
    check_place(f'{where}.validation_path', self.validation_path)
    inside(where, self, 'validation_share')
    choice(f'{where}.counted', self.counted, COUNTED)

  def corpus(self, data: Any) -> Corpus:
    return corpus_of(data, self.label(), **dataclasses.asdict(self))

  def answers(self) -> bool:
    """That batches say which targets count."""
    return True

  def label(self) -> str:
    return 'chat'

  def shown(self) -> str:
    return f"data.source='chat' data.source.path={self.path!r}"


def CASES(folder: pathlib.Path) -> tuple[Chat, ...]:
  """Of files that are written to `folder`."""
  for name, numbers in (('some', range(40)), ('held_out', range(40, 44))):
    with (folder / f'{name}.jsonl').open('w') as file:
      for i in numbers:
        talk = (('user', 'fox?'), ('assistant', f'the fox {i}'))
        messages = [{'role': role, 'content': content} for role, content in talk]
        print(json.dumps({'messages': messages}), file=file)
  path = str(folder / 'some.jsonl')
  return (
    Chat(path, validation_share=0.3),
    Chat(path, validation_path=str(folder / 'held_out.jsonl'), counted='all'),
  )


# No truth in numbers: tests/data/chat_rows_test.py compares rows with ones made by hand.
