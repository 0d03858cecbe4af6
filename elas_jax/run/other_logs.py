"""Evaluations that other codes have printed: their logs, JSON and JSON lines.

What the forms are is told by `elas_jax.audit`. A file is read once and by lines, so it may
be larger than memory; what a progress bar has written over is left out, and that is said,
as are evaluations that began and have no result.
"""

import dataclasses
import itertools
import json
import math
import pathlib
import re
from collections.abc import Iterator
from typing import Any, NamedTuple, TextIO

from elas_jax.common.errors import UserError
from elas_jax.common.limits import shown

LARGEST_LOSS = 300.0  # e to twice of it, as of n = 1, is a float
LONGEST_LINE = 2**20  # longer ones are read in pieces
LARGEST_JSON = 2**26  # of one value; lines may be as many as there are
# They begin with what can be searched for fast, in files of gigabytes.
EVALUATION = re.compile(
  r'val loss(?:(?P<both> and perplexity)? at step (?P<step>\d{1,15})|'
  r'(?<=Final eval loss)): (?P<numbers>.*)'
)
BEGINNING = re.compile(r'Performing evaluation at step (\d{1,15})\s*$')
ARGUMENT = re.compile(r'- (\w+) {2,}(\S+)\s*$')
# Not '[rank0]: ...' and not '[2024-01-02 03:04:05] ...'.
_NUMBER = r'(?:-?\d[\d.eE+-]*|NaN|null)'
BEGINS_JSON = re.compile(
  rf'\s*(?:{_NUMBER}\s*$|[\[{{]\s*(?:["\[{{]|$|[\]}}]\s*$|{_NUMBER}\s*(?:,|$|\]\s*$)))'
)
COLOUR = re.compile(r'\x1b\[[0-9;]*m')
# An argument that only this code has; GaLore's is in some of the others too.
CODES = {
  'loro_type': 'LORO',
  'geomlrk_type': 'LORO',  # as its published log has it
  'model_type': 'CoLA',
  'sp_ratio': 'SLTrain',
  'update_proj_gap': 'GaLore',
}
ARGUMENTS = ('batch_size', 'gradient_accumulation', 'total_batch_size', 'max_length')
STEPS = ('step', 'update_step', 'global_step', '_step')
LOSSES, TOKENS = ('losses', 'loss'), 'tokens'
ACCEPTED = (
  "accepted are logs with lines 'Eval loss at step S: LOSS' (GaLore, LORO) or 'Eval loss "
  "and perplexity at step S: LOSS, PERPLEXITY' (CoLA, SLTrain); JSON or JSON lines with "
  "final_eval_loss, eval_loss or eval/loss, n beside it as 'batches'; and the loss of each "
  "batch: a list, 'losses' and 'tokens'"
  ', or lines LOSS or {"loss": LOSS, "tokens": TOKENS} and nothing else'
)


class Evaluation(NamedTuple):
  line: int
  step: int | str
  loss: float  # as printed
  sizes: dict[str, int]  # what the log says of them
  by_tokens: float | None = None  # where the file has it


@dataclasses.dataclass
class Batches:
  """Sums over batches, whose losses are not kept."""

  n: int = 0
  means: float = 0.0
  tokens: int = 0
  weighted: float = 0.0

  def add(self, where: str, loss: Any, tokens: Any = None) -> None:
    if self.n and (tokens is None) != (not self.tokens):
      raise UserError(f'{where}: must have {TOKENS!r} in every batch or in none')
    self.means += (value := _loss(where, loss))
    self.n += 1
    if tokens is not None:
      if type(tokens) is not int or not 0 < tokens < 2**53:
        raise UserError(f'{where}: {TOKENS}={shown(tokens)}; must be an integer above 0')
      self.tokens += tokens
      self.weighted += tokens * value

  def losses(self) -> dict[str, float]:
    found = {'published': self.means / (self.n + 1), 'mean': self.means / self.n}
    return found | ({'token': self.weighted / self.tokens} if self.tokens else {})


@dataclasses.dataclass
class Found:
  """What a file holds; `convention` is None where its form does not say it."""

  form: str = ''
  convention: str | None = 'published'
  evaluations: list[Evaluation] = dataclasses.field(default_factory=list)
  batches: Batches = dataclasses.field(default_factory=Batches)
  # Step -> line of an evaluation that began, or whose number is written over.
  damaged: dict[int | str, int] = dataclasses.field(default_factory=dict)


def read(path: pathlib.Path) -> Found:
  """The evaluations, or the sums over batches, of a file that is read once, by lines."""
  try:
    with path.open(encoding='utf-8-sig', errors='replace', newline='') as file:
      lines = _lines(path, file)
      first = next((line for line in lines if line[1].strip()), None)
      if first is None:
        raise UserError(f'{path}: is empty; {ACCEPTED}')
      lines = itertools.chain([first], lines)
      as_json = path.suffix in ('.json', '.jsonl', '.ndjson') or BEGINS_JSON.match(first[1])
      found = _read_json(path, lines) if as_json else _read_log(path, lines)
  except OSError as error:
    raise UserError(f'{path}: {error.strerror}; must be a file; {ACCEPTED}') from error
  if found.batches.n and found.evaluations:
    raise UserError(f'{path}: has losses of batches and of whole evaluations; split it')
  if not found.batches.n and not found.evaluations:
    over = ''.join(
      f'the evaluation of step {step} in line {line} has no result that can be read; '
      for step, line in itertools.islice(found.damaged.items(), 1)
    )
    raise UserError(f'{path}: no evaluation found; {over}{ACCEPTED}')
  return found


def _lines(path: pathlib.Path, file: TextIO) -> Iterator[tuple[int, str]]:
  """(line number, text); a progress bar's carriage return ends a text, but no line."""
  number = 1
  for text in iter(lambda: file.readline(LONGEST_LINE), ''):
    if '\0' in text:
      raise UserError(f'{path}: line {number} is not text (a NUL in it); {ACCEPTED}')
    yield number, text
    number += text.endswith('\n')


def _loss(where: str, loss: Any) -> float:
  number = isinstance(loss, int | float) and not isinstance(loss, bool)
  if not number or not 0 <= loss <= LARGEST_LOSS:
    accepted = f'must be a number from 0 to {LARGEST_LOSS:g}, in nats a token'
    raise UserError(f'{where}: the loss is {shown(loss)}; {accepted}')
  return float(loss)


def _checked(where: str, loss: Any, perplexity: Any) -> float:
  """The loss, of which the perplexity, if there is one, must be the exponential."""
  if loss is None and perplexity is not None:
    if not isinstance(perplexity, int | float) or not 1 <= perplexity < 1e130:
      accepted = 'must be a number from 1 to 1e130'
      raise UserError(f'{where}: the perplexity is {shown(perplexity)}; {accepted}')
    return math.log(perplexity)
  loss = _loss(where, loss)
  if perplexity is not None:
    try:
      same = math.isclose(perplexity, math.exp(loss), rel_tol=1e-3)
    except (TypeError, OverflowError):  # text, or an integer beyond floats
      same = False
    if not same:
      expected = f'must be e^loss, {math.exp(loss):.6g}'
      raise UserError(f'{where}: the perplexity is {shown(perplexity)}; {expected}')
  return loss


def _read_log(path: pathlib.Path, lines: Iterator[tuple[int, str]]) -> Found:
  found, sizes, names = Found(), {}, set()
  for number, text in lines:
    text = COLOUR.sub('', text)
    if 'Starting training with the arguments' in text:
      sizes = {}  # a run that goes on appends to its log
    elif match := ARGUMENT.search(text):
      names |= {match[1]} & CODES.keys()
      if match[1] in ARGUMENTS and re.fullmatch('[1-9][0-9]{,8}', match[2]):
        sizes = sizes | {match[1]: int(match[2])}
    elif match := BEGINNING.search(text):
      found.damaged.setdefault(int(match[1]), number)
    elif match := EVALUATION.search(text):
      step = int(match['step']) if match['step'] else 'final'
      try:
        loss, *perplexity = map(float, match['numbers'].split(', '))
        if len(perplexity) != bool(match['both']):
          raise ValueError
      except ValueError:  # a progress bar has written over the end of the line
        found.damaged.setdefault(step, number)
        continue
      loss = _checked(f'{path}: line {number}', loss, *perplexity or [None])
      last = found.evaluations[-1] if found.evaluations else None
      if not last or (last.step, last.loss) != (step, loss):  # else a copy
        found.evaluations.append(Evaluation(number, step, loss, sizes))
      found.form = 'CoLA or SLTrain' if match['both'] else 'GaLore or LORO'
  named = [code for name, code in CODES.items() if name in names]
  found.form = f'a log in the form of {(named or [found.form])[0]}'
  for evaluation in found.evaluations:
    found.damaged.pop(evaluation.step, None)
  return found


def _read_json(path: pathlib.Path, lines: Iterator[tuple[int, str]]) -> Found:
  found = Found()
  for number, value in _values(path, lines):
    where = f'{path}: line {number}'
    if isinstance(value, list):
      for index, one in enumerate(value):
        _add(found, f'{where}, entry {index}', number, one)
    else:
      _add(found, where, number, value)
  return found


def _values(path: pathlib.Path, lines: Iterator[tuple[int, str]]) -> Iterator:
  """(line number, value) of JSON lines, or of one value over several lines."""
  number, text = next(lines)
  try:
    json.loads(text)
  except (ValueError, RecursionError):
    texts, size = [text], len(text)
    for _, text in lines:
      texts.append(text)
      size += len(text)
      if size > LARGEST_JSON:
        most = f'must be at most {LARGEST_JSON >> 20} MB; JSON lines may be longer'
        raise UserError(
          f'{path}: line {number} begins one JSON value of more; {most}'
        ) from None
    lines, text = iter(()), ''.join(texts)
  for at, line in itertools.chain([(number, text)], lines):
    if line.strip():
      try:
        value = json.loads(line.rstrip())
      except (ValueError, RecursionError) as error:
        at += getattr(error, 'lineno', 1) - 1
        raise UserError(f'{path}: line {at}: not JSON ({error}); {ACCEPTED}') from None
      yield at, value


def _add(found: Found, where: str, number: int, value: Any) -> None:
  """Takes one value of JSON: a batch, batches, an evaluation, or something else."""
  if not isinstance(value, dict):
    return found.batches.add(where, value)
  step = next((value[x] for x in STEPS if type(value.get(x)) is int), '-')
  sizes = {name: x for name, x in value.items() if type(x) is int and 0 < x < 2**31}
  add = lambda *of: found.evaluations.append(Evaluation(number, step, *of))
  losses = next((value[name] for name in LOSSES if name in value), None)
  if 'eval/loss' in value and 'eval/published_loss' in value:
    _of_form(found, where, 'metrics of elas_jax, which have both conventions')
    add(_loss(where, value['eval/published_loss']), sizes, _loss(where, value['eval/loss']))
    return None
  for name in ('final_eval', 'eval', 'eval/'):
    joined = name if name.endswith('/') else f'{name}_'
    loss, perplexity = (value.get(joined + what) for what in ('loss', 'perplexity'))
    if any(joined + what in value for what in ('loss', 'perplexity')):
      _of_form(found, where, f'JSON with {joined}loss or {joined}perplexity')
      found.convention = 'published' if name == 'final_eval' else None
      return add(_checked(where, loss, perplexity), sizes)
  if isinstance(losses, list):
    tokens = value.get(TOKENS, [None] * len(losses))
    if not isinstance(tokens, list) or len(tokens) != len(losses):
      raise UserError(f'{where}: {TOKENS!r} must be a list of {len(losses)}, as the losses')
    for index, pair in enumerate(zip(losses, tokens)):
      found.batches.add(f'{where}, batch {index}', *pair)
  elif 'loss' in value and value.keys() <= {'loss', TOKENS, 'batch'}:
    found.batches.add(where, value['loss'], value.get(TOKENS))
  return None


def _of_form(found: Found, where: str, form: str) -> None:
  if found.form not in ('', form):
    raise UserError(f'{where}: {form}; before it is {found.form}; split the file')
  found.form = form
