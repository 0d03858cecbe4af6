"""Reward: the share of a run's answers that a rule finds right.

  python -m elas_jax.reward --workdir=DIR --prompts=validation.jsonl

takes the questions of the file, lines of {"messages": [...]} as `python -m
elas_jax.data.rules` writes them, lets the newest checkpoint answer each with its likeliest
tokens, and compares with the one right answer (data/rule_tasks.py). It prints the mean by
rule and over all questions, and writes DIR/reward.json with the answers. Where that file
cannot be written, the numbers are printed all the same, and the command ends with an error.
"""

import pathlib
from collections.abc import Sequence

import jax
import numpy as np

from elas_jax.common.errors import UserError
from elas_jax.common.limits import LARGEST
from elas_jax.common.places import write_text
from elas_jax.config.cli import Parser, integer, run_command
from elas_jax.data import chat
from elas_jax.data.refinement import read_questions
from elas_jax.data.rule_tasks import reward, rule_of
from elas_jax.models.sampling import generate
from elas_jax.run.metrics import strict_json
from elas_jax.run.workdir import Run, check_text, open_run


def answers(
  run: Run,
  prompts: Sequence[np.ndarray],
  tokens: int,
  batch_size: int,
  temperature: float = 0.0,
  top_p: float = 1.0,
  seed: int = 0,
) -> list[str]:
  """A run's answer to each prompt (data/chat.py), of so many tokens at most.

  The likeliest one, unless there is a temperature.
  """
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
      temperature=temperature,
      top_p=top_p,
      seed=(seed + start) % LARGEST['seed'],
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
  questions = read_questions('--prompts', options.prompts, options.count)
  run = open_run(options.workdir, options.step, {'eval.batch_size': jax.device_count()})
  check_text(run, options.workdir)
  prompts = [chat.asked(question, run.tokenizer) for question in questions]
  replies = answers(run, prompts, options.tokens, options.batch_size)
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
