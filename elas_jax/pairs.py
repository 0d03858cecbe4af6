"""Pairs of a run's own answers: it answers, refines, and a rule says what is better.

  python -m elas_jax.pairs --workdir=DIR --prompts=train.jsonl --output=pairs/1.jsonl

The data side of ARIES (arXiv 2502.05605; data/refinement.py says what is known of it and
what is ours): for each question of the file the newest checkpoint draws some answers, and
then refines each some times, every time reading what it said last. Of all these answers to
a question the best, the latest one of those, is paired with each worse one, in a direct
pair and in one that refines the worse answer; questions whose answers are all as good give
none. Lines have the rewards, the run, and from which answer and refinement they come. The
mean reward of answers and of their refinements is printed, and written beside the pairs.
"""

import argparse
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from elas_jax.common.errors import UserError
from elas_jax.common.limits import LARGEST
from elas_jax.common.places import write_text
from elas_jax.config.cli import Parser, integer, run_command
from elas_jax.data import chat, refinement
from elas_jax.data.rule_tasks import reward
from elas_jax.reward import answers
from elas_jax.run.metrics import strict_json
from elas_jax.run.workdir import Run, check_text, open_run


@dataclasses.dataclass(frozen=True)
class Drawing:
  """How answers are drawn. The numbers are ours."""

  samples: int = 4  # answers to a question
  refinements: int = 2  # of each, one after the other
  tokens: int = 64  # of an answer, at most
  temperature: float = 0.8
  top_p: float = 0.95
  batch_size: int = 256  # prompts at once
  seed: int = 0


@dataclasses.dataclass(frozen=True)
class Answer:
  """What a run said: its `sample`-th answer to a question after so many refinements."""

  text: str
  reward: float
  sample: int
  refinement: int


def draw(run: Run, questions: Sequence[str], how: Drawing) -> list[list[Answer]]:
  """All answers to each question, by refinement and then by sample."""
  chains = [question for question in questions for _ in range(how.samples)]
  found, earlier = [[] for _ in questions], [''] * len(chains)
  for number in range(how.refinements + 1):
    prompts = [
      chat.prompt(_conversation(question, said), run.tokenizer)
      for question, said in zip(chains, earlier)
    ]
    said = answers(
      run,
      prompts,
      how.tokens,
      how.batch_size,
      how.temperature,
      how.top_p,
      (how.seed + number * len(chains)) % LARGEST['seed'],
    )
    for i, (question, text) in enumerate(zip(chains, said)):
      answer = Answer(text, reward(question, text), i % how.samples, number)
      found[i // how.samples].append(answer)
    # A refinement that says nothing cannot be read: the one before it is refined again.
    earlier = [text if text.strip() else last for text, last in zip(said, earlier)]
  return found


def _conversation(question: str, earlier: str) -> list[dict[str, str]]:
  if not earlier:
    return refinement.asked(question)
  return refinement.refining(question, earlier)


def pairs_of(question: str, found: Sequence[Answer]) -> Iterator[dict[str, Any]]:
  """The best answer with each worse one, every text once; none if there is no worse one."""
  said = [answer for answer in found if answer.text.strip()]
  if not said:
    return
  best = max(said, key=lambda answer: (answer.reward, answer.refinement))
  worse = {answer.text: answer for answer in said if answer.reward < best.reward}
  for text, answer in worse.items():
    both = {'chosen': best, 'rejected': answer}
    source = {
      name: {'reward': x.reward, 'sample': x.sample, 'refinement': x.refinement}
      for name, x in both.items()
    }
    for line in refinement.pairs(question, best.text, text):
      yield line | {'source': source}


def summary(found: Sequence[Sequence[Answer]]) -> dict[str, float]:
  """Mean rewards of the answers and of each refinement, and of the best to a question."""
  by_refinement: dict[int, list[float]] = {}
  for of_question in found:
    for answer in of_question:
      by_refinement.setdefault(answer.refinement, []).append(answer.reward)
  means = {f'reward/{number}': float(np.mean(x)) for number, x in by_refinement.items()}
  best = [max(answer.reward for answer in of_question) for of_question in found]
  return means | {'reward/best': float(np.mean(best))}


def collect(
  run: Run, questions: Sequence[str], how: Drawing
) -> tuple[list[dict[str, Any]], dict[str, float]]:
  """(lines of pairs, what is to be said of the answers): a round before its training."""
  found = draw(run, questions, how)
  origin = {'run': str(run.past.workdir), 'step': run.step, 'seed': how.seed}
  lines = [
    line | {'source': origin | line['source']}
    for question, of_question in zip(questions, found)
    for line in pairs_of(question, of_question)
  ]
  return lines, summary(found) | {'questions': len(questions), 'pairs': len(lines)}


def main(arguments: list[str] | None = None) -> None:
  parser = Parser(
    prog='python -m elas_jax.pairs',
    description="Pairs of a run's own answers, by rule.",
    formatter_class=argparse.ArgumentDefaultsHelpFormatter,
  )
  add, own = parser.add_argument, Drawing()
  parser.add_place('--workdir', required=True, help='folder of the run')
  add('--step', type=integer(), help='checkpoint; None: the newest')
  add('--prompts', required=True, help='folder, file or glob of JSON lines with messages')
  parser.add_place('--output', required=True, help='the file of pairs, NAME.jsonl')
  add('--count', type=integer(), default=0, help='questions, 0 = all')
  add('--samples', type=integer(1), default=own.samples, help='answers to a question')
  add('--refinements', type=integer(), default=own.refinements, help='of each answer')
  add('--tokens', type=integer(1), default=own.tokens, help='of an answer at most')
  add('--temperature', type=float, default=own.temperature)
  add('--top_p', type=float, default=own.top_p)
  add('--batch_size', type=integer(1), default=own.batch_size, help='prompts at once')
  add('--seed', type=integer(0, LARGEST['seed']), default=own.seed)
  options = parser.parse_args(arguments)
  if options.output.suffix != '.jsonl':
    raise UserError(f'--output={options.output}: must be a file of pairs, NAME.jsonl')
  if options.samples == 1 and not options.refinements:
    raise UserError('--refinements=0: must be at least 1 with --samples=1, to have pairs')
  questions = refinement.read_questions('--prompts', options.prompts, options.count)
  run = open_run(options.workdir, options.step, {'eval.batch_size': jax.device_count()})
  check_text(run, options.workdir)
  names = [field.name for field in dataclasses.fields(Drawing)]
  how = Drawing(**{name: getattr(options, name) for name in names})
  lines, said = collect(run, questions, how)
  for name, value in said.items():
    print(f'{name:28s} {value:,.6g}', flush=True)
  if not lines:
    raise UserError(
      f'--prompts={options.prompts!r}: all answers to a question are equally good, so that '
      'there are no pairs; give other questions, more --samples or a higher --temperature'
    )
  refinement.write_lines('--output', options.output, lines)
  beside = options.output.with_suffix('.json')
  write_text(beside, strict_json(said | dataclasses.asdict(how), indent=2) + '\n')
  print(f'wrote {len(lines)} pairs to {options.output}, and these numbers to {beside}')


if __name__ == '__main__':
  run_command(main)
