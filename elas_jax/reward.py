"""Reward: the share of a run's answers that a rule finds right.

  python -m elas_jax.reward --workdir=DIR --prompts=validation.jsonl

takes the questions of the file, lines of {"messages": [...]} as `python -m
elas_jax.data.rules` writes them, lets the newest checkpoint answer each with its likeliest
tokens, and compares with the one right answer (data/rule_tasks.py). It prints the mean by
rule and over all questions, and writes DIR/reward.json with the answers. Where that file
cannot be written, the numbers are printed all the same, and the command ends with an error.
"""

import pathlib

import jax
import numpy as np

from elas_jax.common.errors import UserError
from elas_jax.common.places import write_text
from elas_jax.config.cli import Parser, integer, run_command
from elas_jax.data import chat
from elas_jax.data.rule_tasks import reward, rule_of
from elas_jax.data.text_reader import JSON_LINES, list_files, read_documents
from elas_jax.models.sampling import generate
from elas_jax.run.metrics import strict_json
from elas_jax.run.workdir import Run, open_run


def read_questions(path: str, count: int) -> list[str]:
  """The first `count` questions of the files, 0 = all: the first message of a user in each.

  Raises:
    UserError: a line is no conversation, or its question is of no rule.
  """
  questions = []
  for name, file in list_files('--prompts', path, JSON_LINES):
    for document in read_documents(name, file, _question_of):
      if document.text is None:
        raise UserError(f'--prompts={path!r}: {document.key}: {document.error}')
      questions.append(document.text)
      if len(questions) == count:
        return questions
  if not questions:
    raise UserError(f'--prompts={path!r}: holds no line; must have messages of a user')
  return questions


def _question_of(record: object) -> tuple[str | None, str]:
  messages = record.get('messages') if isinstance(record, dict) else None
  if why := chat.fault(messages):
    return None, why
  asked = [x['content'] for x in messages if x['role'] == 'user']
  if not asked:
    return None, "messages: none of them is of the role 'user'"
  try:
    rule_of(asked[0])
  except UserError as error:
    return None, str(error)
  return asked[0], ''


def answers(run: Run, questions: list[str], tokens: int, batch_size: int) -> list[str]:
  """The likeliest answer of a run to each question, of so many tokens at most."""
  prompts = [chat.asked(question, run.tokenizer) for question in questions]
  found = [''] * len(prompts)
  # By length: of a batch, what its shortest prompt has is read in one pass.
  order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
  for start in range(0, len(order), batch_size):
    numbers = order[start : start + batch_size]
    texts = generate(
      run.config.model,
      run.variables,
      run.tokenizer,
      [prompts[i] for i in numbers],
      length=tokens,
      temperature=0.0,
      top_p=1.0,
      seed=0,
      stops=chat.stops(run.tokenizer),
    )
    for i, text in zip(numbers, texts):
      found[i] = text
  return found


def main(arguments: list[str] | None = None) -> None:
  parser = Parser(
    prog='python -m elas_jax.reward',
    description="The share of a run's answers that a rule finds right.",
  )
  parser.add_place('--workdir', required=True, help='folder of the run')
  parser.add_argument('--step', type=integer(), help='checkpoint; default: the newest')
  parser.add_argument(
    '--prompts', required=True, help='folder, file or glob of JSON lines with messages'
  )
  parser.add_argument(
    '--count', type=integer(), default=0, help='questions, 0 = all; default: all'
  )
  parser.add_argument(
    '--tokens', type=integer(1), default=64, help='of an answer at most; default: 64'
  )
  parser.add_argument(
    '--batch_size', type=integer(1), default=256, help='questions at once; default: 256'
  )
  options = parser.parse_args(arguments)
  questions = read_questions(options.prompts, options.count)
  run = open_run(options.workdir, options.step, {'eval.batch_size': jax.device_count()})
  if run.tokenizer is None:
    raise UserError(
      f'--workdir={options.workdir}: its task is {run.config.task!r}; must be the folder '
      "of a 'language' run"
    )
  replies = answers(run, questions, options.tokens, options.batch_size)
  result = rewards(questions, replies)
  for name, (mean, number) in result.items():
    print(f'{name:28s} {mean:.2%} of {number}', flush=True)
  pairs = zip(questions, replies)
  _write(
    pathlib.Path(options.workdir) / 'reward.json',
    {
      'step': run.step,
      'prompts': options.prompts,
      'rewards': {name: {'mean': x, 'questions': n} for name, (x, n) in result.items()},
      'answers': [{'question': q, 'reply': r, 'reward': reward(q, r)} for q, r in pairs],
    },
  )


def rewards(questions: list[str], replies: list[str]) -> dict[str, tuple[float, int]]:
  """(mean reward, number of questions) by rule, and under 'all' of all of them."""
  found = {}
  for question, reply in zip(questions, replies):
    found.setdefault(rule_of(question), []).append(reward(question, reply))
  found = dict(sorted(found.items()))
  found['all'] = [x for of_rule in found.values() for x in of_rule]
  return {name: (float(np.mean(x)), len(x)) for name, x in found.items()}


def _write(path: pathlib.Path, result: dict) -> None:
  try:
    write_text(path, strict_json(result, indent=2) + '\n')
  except OSError as error:
    raise UserError(f'{path}: not written: {error.strerror}') from error
  print(f'written to {path}')


if __name__ == '__main__':
  run_command(main)
