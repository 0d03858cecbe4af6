"""Answers that are refined: conversations, pairs, and wrong answers that a rule makes.

ARIES (arXiv 2502.05605, named EVOLVE in later versions) trains a model to answer and to
improve an answer x -> y, (x, y, z) -> y', where z is an instruction to refine. As far as it
is known here, from the paper's abstract and descriptions of it; there was no code of the
authors to compare with:

  fine-tuning  -log p(y_w | x) - log p(y_w | x, y_l, z), here `examples`
  preference   DPO on (y_w, y_l | x), and on (y_w, y_l | x, y_l, z), here `pairs`
  data         answers of the model and refinements of them, selected by a reward model or
               by rules, here `python -m elas_jax.pairs`; then training again

with a better answer y_w and a worse one y_l. Ours are the words of z, that the rejected
refinement is the earlier answer itself, that both terms count alike, and the rule: an
answer is right or wrong as data/rule_tasks.py says.

  python -m elas_jax.data.refinement --input=rules/train.jsonl --output=refine/train

makes of questions, as `python -m elas_jax.data.rules` writes them, OUTPUT/sft.jsonl, for
data.source=chat with counted=last, and OUTPUT/pairs.jsonl, for data.source=pairs, without a
model: the better answer is the rule's, the worse one the rule's with its last line made
wrong.
"""

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from typing import Any

from elas_jax.common.errors import UserError
from elas_jax.common.limits import LARGEST
from elas_jax.common.places import write_text
from elas_jax.config.cli import Parser, integer, run_command
from elas_jax.data import chat, rule_tasks
from elas_jax.data.text_reader import JSON_LINES, list_files, read_documents

REFINE = 'Refine your answer.'  # z; ours
DIRECT, REFINED = 'direct', 'refined'

Line = dict[str, Any]


def asked(question: str) -> list[Line]:
  """The conversation x."""
  return [{'role': 'user', 'content': question}]


def refining(question: str, earlier: str) -> list[Line]:
  """The conversation (x, y, z), which asks for something better than `earlier`."""
  return [*asked(question), _said(earlier), {'role': 'user', 'content': REFINE}]


def _said(answer: str) -> Line:
  return {'role': chat.ANSWERS, 'content': answer}


def examples(question: str, better: str, worse: str) -> list[Line]:
  """Lines of data.source=chat: the better answer, direct and as a refinement."""
  prompts = ((DIRECT, asked(question)), (REFINED, refining(question, worse)))
  return [{'messages': [*prompt, _said(better)], 'of': of} for of, prompt in prompts]


def pairs(question: str, better: str, worse: str) -> list[Line]:
  """Lines of data.source=pairs: the better answer against the worse, both ways."""
  prompts = ((DIRECT, asked(question)), (REFINED, refining(question, worse)))
  answers = {'chosen': better, 'rejected': worse}
  return [{'prompt': prompt, **answers, 'of': of} for of, prompt in prompts]


def wrong_reply(question: str, generator: random.Random) -> str:
  """The rule's reply with one digit or letter of its last line changed."""
  *steps, answer = rule_tasks.reply_to(question).splitlines()
  while True:
    at = generator.randrange(len(answer))
    letters = '0123456789' if answer[at].isdecimal() else 'abcdefghijklmnopqrstuvwxyz'
    if answer[at] == '-':
      continue
    changed = answer[:at] + generator.choice(letters) + answer[at + 1 :]
    reply = '\n'.join([*steps, changed])
    if not rule_tasks.reward(question, reply):
      return reply


def read_questions(flag: str, path: str, count: int = 0) -> list[str]:
  """The first `count` questions of the files, 0 = all: the first message of a user in each.

  Raises:
    UserError: a line is no conversation, or its question is of no rule.
  """
  questions = []
  for name, file in list_files(flag, path, JSON_LINES):
    for document in read_documents(name, file, _question_of):
      if document.text is None:
        raise UserError(f'{flag}={path!r}: {document.key}: {document.error}')
      questions.append(document.text)
      if len(questions) == count:
        return questions
  if not questions:
    raise UserError(f'{flag}={path!r}: holds no line; must have messages of a user')
  return questions


def _question_of(record: object) -> tuple[str | None, str]:
  messages = record.get('messages') if isinstance(record, dict) else None
  if why := chat.fault(messages):
    return None, why
  questions = [x['content'] for x in messages if x['role'] == 'user']
  if not questions:
    return None, "messages: none of them is of the role 'user'"
  try:
    rule_tasks.rule_of(questions[0])
  except UserError as error:
    return None, str(error)
  return questions[0], ''


def lines_of(
  questions: Sequence[str], seed: int
) -> Iterator[tuple[list[Line], list[Line]]]:
  """(examples, pairs) of each question, the same for the same seed on every machine."""
  for question in questions:
    generator = random.Random(f'{seed} {question}')
    answers = rule_tasks.reply_to(question), wrong_reply(question, generator)
    yield examples(question, *answers), pairs(question, *answers)


def main(arguments: list[str] | None = None) -> None:
  parser = Parser(
    prog='python -m elas_jax.data.refinement',
    description='Writes answers and refinements that a rule makes, to learn from.',
    formatter_class=argparse.ArgumentDefaultsHelpFormatter,
  )
  add = parser.add_argument
  add('--input', required=True, help='folder, file or glob of JSON lines with messages')
  parser.add_place('--output', required=True, help='the folder of both files')
  add('--seed', type=integer(0, LARGEST['seed']), default=0, help='of the wrong answers')
  options = parser.parse_args(arguments)
  questions = read_questions('--input', options.input)
  both = zip(*lines_of(questions, options.seed))
  for name, of_questions in zip(('sft', 'pairs'), both):
    lines = [line for of_question in of_questions for line in of_question]
    write_lines('--output', options.output / f'{name}.jsonl', lines)
    print(f'wrote {len(lines)} lines to {options.output / name}.jsonl')


def write_lines(flag: str, path: Any, lines: Sequence[Line]) -> None:
  """A file of JSON lines, whole or not at all; UserError if it cannot be written."""
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, ''.join(json.dumps(line) + '\n' for line in lines))
  except OSError as error:
    raise UserError(f'{flag}: {path} cannot be written: {error.strerror}') from error


if __name__ == '__main__':
  run_command(main)
