"""Several corpora by shares of rows, which may change by phase (PLM, arXiv 2503.12167).

  sources='web=text_files:FOLDER,code=python_source,more=tfds:c4/en'
  phases='web=9,code=1 | 0.8: web=0.3,code=0.3,more=0.4'

A source is NAME=KIND, one of the other kinds here; behind a colon come the kind's fields,
joined by semicolons, of which the first needs no name: web=text_files:DATA;validation_path=
HELD_OUT. A phase has the sources' shares of its rows, and one after the first begins with
how many steps come before it, or which share of train.steps. Shares are divided by their
sum; what a phase does not name has none, and is not read in it. '' as phases: equal shares.

A row is a block of data.sequence_length tokens, so shares are of rows, and of tokens where
rows are packed. After any step of a phase a source has had within one row of its share of
it (data/mixed_order.py). Each source is shuffled and repeated for itself, and all have the
same tokenizer. That PLM's phases have other mixtures is published, their shares are not.
"""

import dataclasses
import functools
import math
import pathlib
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from elas_jax.common.errors import UserError
from elas_jax.common.limits import quoted, shown
from elas_jax.data.corpus import Mixed
from elas_jax.data.mixed_order import Phase
from elas_jax.systems import kinds
from elas_jax.systems.sources.python_source import PythonSource
from elas_jax.systems.sources.text_files import TextFiles
from elas_jax.systems.sources.tfds import Tfds

CORPORA = {'text_files': TextFiles, 'python_source': PythonSource, 'tfds': Tfds}
NAME = re.compile(r'[a-z][a-z0-9_]{0,30}')  # also of metrics
NUMBER = re.compile(r'\d{1,12}(\.\d{0,12})?|\.\d{1,12}')
LONGEST = 100_000  # rows after which a phase's pattern repeats: it is held in memory

# What a phase says: the number before its colon as it is written, and shares by name.
Said = tuple[str, dict[str, str]]


def in_steps(
  text: str, where: str, steps_of: Callable[[int | float], int], steps: int
) -> str:
  """The phases with steps instead of shares of train.steps, written in one way."""
  del steps  # a start is a number of them, or a share below 1
  found = []
  for start, shares in _said(text, where):
    at = f'{steps_of(float(start) if "." in start else int(start))}: ' if start else ''
    found.append(at + ','.join(f'{name}={share}' for name, share in shares.items()))
  return ' | '.join(found)


@dataclasses.dataclass(frozen=True)
class Mixture:
  """Several sources, by shares of rows."""

  # NAME=KIND:FIELDS joined by commas, as web=text_files:FOLDER,code=python_source; must be
  # given.
  sources: str = kinds.place()
  # NAME=SHARE of rows, joined by commas; then | START: and the same for each further phase,
  # START steps, or that share of train.steps, after the start. '': equal shares.
  phases: str = kinds.starts(in_steps)

  def check(self, where: str, config: Any) -> None:
    sources = read_sources(self.sources, f'{where}.sources')
    for name, source in sources.items():
      source.check(f'{where}.sources: {name}', config)
    phases = read_phases(self.phases, tuple(sources), f'{where}.phases')
    for before, phase in zip(phases, phases[1:]):
      given = (
        f'{where}.phases={shown(self.phases)}: a phase starts after {phase.start} steps'
      )
      if phase.start < before.start:
        raise UserError(f'{given}; must be at least the {before.start} of the one before')
      if phase.start > config.train.steps:
        raise UserError(f'{given}; must be at most train.steps={config.train.steps}')

  @functools.cached_property
  def mixed(self) -> tuple[Phase, ...]:
    """The phases that have steps and differ, with shares in the order of the sources."""
    found = []
    for phase in read_phases(self.phases, tuple(read_sources(self.sources))):
      if found and found[-1].start == phase.start:
        found.pop()
      if not found or found[-1].shares != phase.shares:
        found.append(phase)
    return tuple(found)

  def corpus(self, data: Any) -> Mixed:
    corpora = {x: of.corpus(data) for x, of in read_sources(self.sources).items()}
    return Mixed(corpora, self.mixed)

  def at_step(self, step: int) -> tuple[int, ...]:
    """The sources' shares in a step, from 1."""
    return [phase for phase in self.mixed if phase.start < step][-1].shares

  def label(self) -> str:
    return 'mixture'

  def shown(self) -> str:
    return f"data.source='mixture' data.source.sources={self.sources!r}"


@functools.lru_cache(maxsize=64)
def read_sources(text: str, where: str = 'data.source.sources') -> dict[str, Any]:
  """The kinds by name; UserError for what is none. Not to be changed by the caller."""
  if not text.strip():
    raise UserError(
      f"{where}={text!r}: must name sources, as 'web=text_files:FOLDER,code=python_source'"
    )
  return {
    name: _kind(of, f'{where}: {name}')
    for name, of in _pairs(text, f'{where}={shown(text)}', 'NAME=KIND:FIELDS').items()
  }


def _kind(text: str, where: str) -> Any:
  """One kind of its name and fields."""
  name, _, rest = text.partition(':')
  name = name.strip()
  if name not in CORPORA:
    raise UserError(f'{where}={shown(name)}: must be one of {quoted(sorted(CORPORA))}')
  fields = {field.name: field.type for field in dataclasses.fields(CORPORA[name])}
  values = {}
  for number, part in enumerate(rest.split(';') if rest else []):
    field, equals, value = part.partition('=')
    if not number and field.strip() not in fields:
      field, equals, value = next(iter(fields)), '=', part
    field = field.strip()
    if field not in fields or not equals:
      accepted = quoted(f'{x}=' for x in fields)
      raise UserError(f'{where}: {shown(part)}: must begin with one of {accepted}')
    if field in values:
      raise UserError(f'{where}: {field!r} is there twice')
    if fields[field] is float:
      value = float(_number(value.strip(), f'{where}.{field}'))
    values[field] = value.strip() if isinstance(value, str) else value
  return CORPORA[name](**values)


@functools.lru_cache(maxsize=64)
def read_phases(
  text: str, names: tuple[str, ...], where: str = 'data.source.phases'
) -> tuple[Phase, ...]:
  """The phases of these sources; `text` has no shares of train.steps any more."""
  if not text.strip():
    return (Phase(0, (1,) * len(names)),)
  found = []
  for start, shares in _said(text, where):
    for name in shares:
      if name not in names:
        raise UserError(
          f'{where}={shown(text)}: {name!r} is no source; must be of {quoted(names)}'
        )
    if start and not start.isdigit():
      raise UserError(
        f'{where}={shown(text)}: {start} must be a number of steps here; `filled` makes '
        'one of a share'
      )
    whole = _whole([Fraction(shares.get(name, '0')) for name in names])
    if not sum(whole):
      raise UserError(f'{where}={shown(text)}: a phase must have a share above 0')
    if sum(whole) > LONGEST:
      raise UserError(
        f'{where}={shown(text)}: the shares of a phase are integers of the sum '
        f'{sum(whole)}; it must be at most {LONGEST}: give rounder ones'
      )
    found.append(Phase(int(start or 0), whole))
  return tuple(found)


def _whole(shares: list[Fraction]) -> tuple[int, ...]:
  """The smallest integers that are to each other as the shares."""
  common = math.lcm(*(share.denominator for share in shares))
  found = [int(share * common) for share in shares]
  divisor = math.gcd(*found) or 1
  return tuple(x // divisor for x in found)


def _said(text: str, where: str) -> list[Said]:
  """What each phase says; UserError for what is no number or in the wrong place."""
  if not text.strip():
    return []
  found, given = [], f'{where}={shown(text)}'
  for number, part in enumerate(text.split('|')):
    start, colon, shares = part.rpartition(':')
    start = start.strip()
    if bool(number) != bool(colon):
      raise UserError(
        f'{given}: {shown(part.strip())} must '
        + ('begin with START:, in steps' if number else 'have no start, as it is the first')
      )
    if number:
      _number(start, f'{given}: the start of a phase')
    pairs = _pairs(shares, given, 'NAME=SHARE')
    for name, share in pairs.items():
      _number(share, f'{given}: {name}')
    found.append((start, pairs))
  return found


def _pairs(text: str, given: str, form: str) -> dict[str, str]:
  """NAME=VALUE, joined by commas."""
  found = {}
  for part in text.split(','):
    name, equals, value = part.partition('=')
    name = name.strip()
    if not equals or not NAME.fullmatch(name):
      raise UserError(
        f'{given}: {shown(part.strip())} must be {form}, with a name of small letters, '
        'digits and _'
      )
    if name in found:
      raise UserError(f'{given}: {name!r} is there twice')
    found[name] = value.strip()
  return found


def _number(text: str, what: str) -> Fraction:
  if not NUMBER.fullmatch(text):
    raise UserError(f'{what}={shown(text)}: must be a number of at least 0, as 0.7')
  return Fraction(text)


def CASES(folder: pathlib.Path) -> tuple[Mixture, ...]:
  """Of files that are written to `folder`."""
  for source in ('web', 'code'):
    (folder / source).mkdir()
    for i in range(12):
      text = f'the quick brown {source} jumps {i} times\n' * 4
      (folder / f'{source}/{i:02d}.txt').write_text(text)
  named = (f'{x}=text_files:{folder}/{x};validation_share=0.3' for x in ('web', 'code'))
  both = ','.join(named)
  return (
    Mixture(both),
    Mixture(both, 'web=0.9,code=0.1 | 2: code=1'),
  )


# No truth in numbers: tests/data/mixed_test.py counts the rows of each source.
