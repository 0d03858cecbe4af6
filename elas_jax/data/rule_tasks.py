"""Questions with one answer that a rule checks: small sums, and games with letters.

Each rule draws questions of a size, knows the answer from the question alone, and writes
the reply to learn, for which it may take steps. A reply counts as right, reward 1, if its
last line is the answer: white space around it, quotation marks, a full stop at its end and
leading zeros of a number apart. Anything else is wrong, reward 0.
"""

import dataclasses
import random
import re
import string
from collections.abc import Callable

from elas_jax.common.errors import UserError
from elas_jax.common.limits import quoted, shown

Numbers = tuple[str, ...]  # the parts of a question, as they stand in it


@dataclasses.dataclass(frozen=True)
class Rule:
  """One sort of question.

  Attributes:
    question: with {} for each part.
    draw: (generator, size) -> the parts; size is of digits or letters.
    answer: the parts -> the answer.
    steps: the parts -> the lines of a reply before the answer.
  """

  question: str
  draw: Callable[[random.Random, int], Numbers]
  answer: Callable[..., str]
  steps: Callable[..., list[str]] = lambda *parts: []

  def parts(self, question: str) -> Numbers | None:
    """Of a question of this rule; None for others."""
    pattern = re.escape(self.question).replace(r'\{\}', '([a-z0-9]+)')
    found = re.fullmatch(pattern, question.strip())
    return found.groups() if found else None


def _two_numbers(generator: random.Random, digits: int) -> Numbers:
  return tuple(str(generator.randrange(10**digits)) for _ in range(2))


def _number_and_digit(generator: random.Random, digits: int) -> Numbers:
  return str(generator.randrange(10**digits)), str(generator.randrange(10))


def _word(generator: random.Random, letters: int) -> Numbers:
  return (''.join(generator.choices(string.ascii_lowercase, k=letters)),)


def _letter_in_word(generator: random.Random, letters: int) -> Numbers:
  """Of few letters, so that some come several times."""
  few = generator.sample(string.ascii_lowercase, 3)
  word = ''.join(generator.choices(few, k=letters))
  return generator.choice(few), word


def _digit_by_digit(a: str, b: str) -> list[str]:
  """The sum from the left: the digits of b are added to a one after the other."""
  lines, total = [], int(a)
  for place, digit in enumerate(b, start=1):
    part = int(digit) * 10 ** (len(b) - place)
    lines.append(f'{total} + {part} = {total + part}')
    total += part
  return lines


RULES = {
  'addition': Rule('What is {} + {}?', _two_numbers, lambda a, b: str(int(a) + int(b))),
  'subtraction': Rule('What is {} - {}?', _two_numbers, lambda a, b: str(int(a) - int(b))),
  'product': Rule('What is {} * {}?', _number_and_digit, lambda a, b: str(int(a) * int(b))),
  'steps': Rule(
    'Add {} and {} step by step.',
    _two_numbers,
    lambda a, b: str(int(a) + int(b)),
    _digit_by_digit,
  ),
  'reverse': Rule('Write {} backwards.', _word, lambda word: word[::-1]),
  'copy': Rule('Write {} again.', _word, lambda word: word),
  'sort': Rule('Sort the letters of {}.', _word, lambda word: ''.join(sorted(word))),
  'count': Rule(
    'How often is {} in {}?', _letter_in_word, lambda letter, word: str(word.count(letter))
  ),
}
OF_NUMBERS = ('addition', 'subtraction', 'product', 'steps')


def rule_of(question: str) -> str:
  """The name of the rule that a question is of; UserError for other questions."""
  return _rule_and_parts(question)[0]


def answer_of(question: str) -> str:
  """The one answer to a question of a rule; UserError for other questions."""
  name, parts = _rule_and_parts(question)
  return RULES[name].answer(*parts)


def reply_to(question: str) -> str:
  """What is learned: the steps of the rule, if it has some, and the answer."""
  name, parts = _rule_and_parts(question)
  rule = RULES[name]
  return '\n'.join([*rule.steps(*parts), rule.answer(*parts)])


def reward(question: str, reply: str) -> float:
  """1.0 if the last line of the reply is the answer, else 0.0."""
  return float(normalised(reply) == normalised(answer_of(question)))


def normalised(reply: str) -> str:
  """The last line, as it is compared."""
  lines = reply.strip().splitlines() or ['']
  last = lines[-1].strip().rstrip('.').strip().strip('"\'')
  return str(int(last)) if re.fullmatch('-?[0-9]{1,99}', last) else last


def draw(name: str, generator: random.Random, size: int) -> str:
  """A question of a rule; `size` in digits of each number, or letters of the word."""
  rule = RULES[name]
  return rule.question.format(*rule.draw(generator, size))


def _rule_and_parts(question: str) -> tuple[str, Numbers]:
  for name, rule in RULES.items():
    if (parts := rule.parts(question)) and (name not in OF_NUMBERS or _digits(parts)):
      return name, parts
  raise UserError(
    f'question={shown(question)}: is of no rule; there are {quoted(RULES)}, such as '
    f'{RULES["addition"].question.format(1, 2)!r}'
  )


def _digits(parts: Numbers) -> bool:
  return all(part.isdecimal() for part in parts)
