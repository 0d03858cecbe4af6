"""Writes conversations whose answers a rule checks: questions of data/rule_tasks.py.

  python -m elas_jax.data.rules --output=DIR --count=20000

makes DIR/train.jsonl and DIR/validation.jsonl for --config.data.source=chat, lines of
{"messages": [question, reply], "rule": NAME}, the same for the same options on every
machine. A question is of one file or the other by its hash: none of train is in validation,
nor in that of any other folder made here, whatever its options.
"""

import argparse
import itertools
import json
import random
from collections.abc import Iterator

from elas_jax.common.errors import UserError
from elas_jax.common.limits import LARGEST, quoted, shown
from elas_jax.common.places import write_text
from elas_jax.config.cli import Parser, integer, run_command
from elas_jax.data import rule_tasks
from elas_jax.data.hashing import goes_to_validation

VALIDATION_SHARE = 0.1  # of all questions; fixed, so that folders agree on them
MOST = 10_000_000  # lines, which are made in memory
MISSES = 1000  # draws in a row that were there before, after which there are no more


def questions(
  rule: str, counts: dict[str, int], size: int, seed: int
) -> dict[str, list[str]]:
  """Different questions of a rule by split, as many as `counts` says.

  Raises:
    UserError: there are not so many.
  """
  generator = random.Random(f'{seed} {rule} {size}')
  found, seen, missed = {split: [] for split in counts}, set(), 0
  while any(len(found[split]) < counts[split] for split in counts):
    question = rule_tasks.draw(rule, generator, size)
    if question in seen:
      missed += 1
      if missed > MISSES:
        raise UserError(_too_few(rule, counts, seen))
      continue
    seen.add(question)
    missed = 0
    split = 'validation' if goes_to_validation(question, VALIDATION_SHARE) else 'train'
    if len(found[split]) < counts[split]:
      found[split].append(question)
  return found


def _too_few(rule: str, counts: dict[str, int], seen: set[str]) -> str:
  size = 'digits' if rule in rule_tasks.OF_NUMBERS else 'letters'
  there = sum(goes_to_validation(question, VALIDATION_SHARE) for question in seen)
  return (
    f'--rules: {rule} has {len(seen) - there} questions for training and {there} for '
    f'validation, fewer than {counts["train"]} and {counts["validation"]}; give more '
    f'--{size}, a smaller --count, or --rules without it'
  )


def lines(
  rules: list[str], counts: dict[str, int], digits: int, letters: int, seed: int
) -> dict[str, list[str]]:
  """By split, lines of JSON; rules take turns, and have shares that differ by one line."""
  drawn = {split: [] for split in counts}
  for i, rule in enumerate(rules):
    own = {split: len(range(i, n, len(rules))) for split, n in counts.items()}
    size = digits if rule in rule_tasks.OF_NUMBERS else letters
    for split, of_rule in questions(rule, own, size, seed).items():
      drawn[split].append([_line(rule, question) for question in of_rule])
  return {split: list(_in_turn(of_rules)) for split, of_rules in drawn.items()}


def _line(rule: str, question: str) -> str:
  reply = rule_tasks.reply_to(question)
  talk = (('user', question), ('assistant', reply))
  messages = [{'role': role, 'content': content} for role, content in talk]
  return json.dumps({'messages': messages, 'rule': rule})


def _in_turn(of_rules: list[list[str]]) -> Iterator[str]:
  """The first of each, the second of each, ... as far as there are some."""
  for of_turn in itertools.zip_longest(*of_rules):
    yield from (line for line in of_turn if line is not None)


def _rules(text: str) -> list[str]:
  names = text.split(',')
  if unknown := [name for name in names if name not in rule_tasks.RULES]:
    raise UserError(
      f'--rules={shown(text)}: {unknown[0]!r} must be one of {quoted(rule_tasks.RULES)}'
    )
  return list(dict.fromkeys(names))


def main(arguments: list[str] | None = None) -> None:
  parser = Parser(
    prog='python -m elas_jax.data.rules',
    description='Writes conversations whose answers a rule checks.',
    formatter_class=argparse.ArgumentDefaultsHelpFormatter,
  )
  add = parser.add_argument
  parser.add_place('--output', required=True, help='the folder of both files')
  add('--count', type=integer(1, MOST), default=20000, help='of training, all rules')
  add('--validation', type=integer(1, MOST), default=1000, help='the same of validation')
  add('--rules', default=','.join(rule_tasks.RULES), help='some of these')
  add('--digits', type=integer(1, 18), default=3, help='of numbers, at most')
  add('--letters', type=integer(1, 64), default=5, help='of words')
  add('--seed', type=integer(0, LARGEST['seed']), default=0, help='another: other ones')
  options = parser.parse_args(arguments)
  counts = {'train': options.count, 'validation': options.validation}
  found = lines(
    _rules(options.rules), counts, options.digits, options.letters, options.seed
  )
  for split, of_split in found.items():
    path = options.output / f'{split}.jsonl'
    try:
      options.output.mkdir(parents=True, exist_ok=True)
      write_text(path, '\n'.join(of_split) + '\n')
    except OSError as error:
      raise UserError(
        f'--output={str(options.output)!r} cannot be written: {error.strerror}'
      ) from error
    print(f'wrote {len(of_split)} conversations to {path}')


if __name__ == '__main__':
  run_command(main)
