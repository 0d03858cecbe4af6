"""Whether a run may go on: with the config, the tokenizer and the data it was made with.

The newest checkpoint says what those were; config.json is only what a reader looks at. What
changed all the same and is accepted, or cannot be known, becomes a note in metrics.jsonl.
"""

import dataclasses
import functools
import json
import pathlib
import shlex
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from elas_jax.common.errors import UserError
from elas_jax.config import schema
from elas_jax.config.config import Config, filled
from elas_jax.config.migrate import lifted
from elas_jax.data.hashing import fingerprint
from elas_jax.data.record import difference
from elas_jax.data.tokenizers import Tokenizer, parse_tokenizer
from elas_jax.run import checkpoint
from elas_jax.systems.kinds import about, is_free, is_phase, is_place

# What may change when a run is continued: nothing that the numbers so far depend on,
# except train.steps, which lengthens the schedule, and with it what follows from it; but
# no step that is done may come into another phase of the model or of a mixture of data.
MAY_CHANGE = (
  'train.steps',
  'train.log_every',
  'train.tensorboard',
  'train.compilation_cache',
  'data.accept_changed',
)
MAY_CHANGE_SECTIONS = ('mesh', 'checkpoint', 'eval', 'profile_steps', 'restore')
MACHINE_FIELDS = (
  'data.cache_dir',
  'data.processes',
  'data.read_threads',
  'data.prefetch',
)


@dataclasses.dataclass(frozen=True)
class Past:
  """What a checkpoint says of its run.

  Attributes:
    workdir: of the run.
    step: of the checkpoint.
    config: as a nested dict, of the version that wrote it.
    needs: data.describe(): the tokenizer, or the names of the classes.
    record: data.record(); None if it is older than that.
  """

  workdir: pathlib.Path
  step: int
  config: dict[str, Any]
  needs: dict[str, Any]
  record: dict[str, Any] | None

  @functools.cached_property
  def parsed(self) -> Config:
    """The config as of this version of the code; not checked."""
    return filled(lifted(self.config, f'{self.workdir}: '))

  @functools.cached_property
  def tokenizer(self) -> Tokenizer | None:
    """Of a language model."""
    if not self.parsed.traits.text:
      return None
    return parse_tokenizer(json.dumps(self.needs), str(self.workdir))

  def change(self, data: Any, splits: tuple[str, ...]) -> str:
    """In what these splits of `data` differ from those of the run, '' if in nothing."""
    return difference(self.record, data.record(), splits) if self.record else ''

  def unknown(self) -> str:
    """The line that says so if there is no record, else ''."""
    if self.record:
      return ''
    return (
      f'the checkpoint of step {self.step} in {self.workdir} keeps no record of its data: '
      'whether these are the same is not known'
    )


def load_past(workdir: str | pathlib.Path, field: str, step: int | None = None) -> Past:
  """Of the checkpoint of `step`, or the newest; `field` names the workdir in errors."""
  return checkpoint.load(workdir, step, field, functools.partial(read_past, workdir))


def read_past(workdir: str | pathlib.Path, saved: checkpoint.Saved) -> Past:
  """Of one checkpoint. Those from before there was a `record` have none."""
  return Past(
    workdir=pathlib.Path(workdir),
    step=saved.step,
    config=saved.json('config'),
    needs=saved.json(saved.vocabulary),
    record=saved.json('record') if saved.has('record') else None,
  )


def past_of(workdir: pathlib.Path) -> Past | None:
  """Of the newest checkpoint; None if there is none, so that the run starts."""
  if not checkpoint.has_checkpoint(workdir):
    return None
  return load_past(workdir, '--workdir')


def check_config(past: Past, config: Config) -> list[str]:
  """A run is continued with the config that its checkpoint was made with.

  Of a file or folder what is there is compared, not its name; only where nothing is known
  of what was there, as in checkpoints older than the record of the data, the name has to
  do. Returns what is to be said: numbers of steps that moved with train.steps.
  """
  old = {path: value for path, value, _ in schema.leaves(past.parsed)}
  lengthened = past.parsed.train.steps != config.train.steps
  for path, value, field in schema.leaves(config):
    free = (
      path in MAY_CHANGE + MACHINE_FIELDS
      or path.split('.')[0] in MAY_CHANGE_SECTIONS
      or is_free(field)
      or (lengthened and is_phase(field))
      or (past.record and is_place(field))
    )
    if not free and old.get(path) != value:
      raise UserError(
        f'{path}={value!r}: the run in {past.workdir} was started with '
        f'{old.get(path)!r}; give that, or another --workdir'
      )
  if config.train.steps < past.step:
    raise UserError(
      f'train.steps={config.train.steps}: the run in {past.workdir} has done {past.step} '
      'already; give at least these, or another --workdir'
    )
  _check_done(past, config)
  said = []
  if config.traits.reference and config.restore != past.parsed.restore:
    said.append(
      f'restore={config.restore!r}: not looked at, the run goes on as it began, compared '
      f'with the parameters of {past.parsed.restore!r}'
    )
  moved = [
    f'{path} {old[path]} -> {value}'
    for path, value, field in schema.leaves(config)
    if is_phase(field) and old[path] != value
  ]
  steps = f'train.steps {past.parsed.train.steps} -> {config.train.steps}'
  return said + ([f'{steps}, and with it {", ".join(moved)}'] if moved else [])


def _check_done(past: Past, config: Config) -> None:
  """Refuses phases of the model or the data that a step which is done was not in."""
  in_phases = lambda config: {
    path: kind
    for section in ('model', 'data')
    for path, _, kind in schema.kinds_in(getattr(config, section), f'{section}.')
  }
  before = in_phases(past.parsed)
  for path, kind in in_phases(config).items():
    old, steps = before[path], range(1, past.step + 1)
    other = (step for step in steps if _phase(old, step) != _phase(kind, step))
    if old == kind or (step := next(other, None)) is None:
      continue
    names = [x.name for x in dataclasses.fields(kind) if is_phase(x)]
    names = [name for name in names if getattr(old, name) != getattr(kind, name)]
    now = ', '.join(f'{path}.{name}={getattr(kind, name)}' for name in names)
    was = (f'--config.{path}.{name}={getattr(old, name)}' for name in names)
    flags = ' '.join(map(shlex.quote, was))
    raise UserError(
      f'{now}: the run in {past.workdir} has done {past.step} steps, of which step {step} '
      f'was in another phase; give {flags}, what it was started with, or another --workdir'
    )


def _phase(kind: Any, step: int) -> Any:
  """What stands for a kind in a step; None while it does so itself."""
  now = about(kind, 'at_step', step, default=kind)
  return None if now is kind else now


def own_tokenizer(past: Past | None, config: Config) -> Tokenizer | None:
  """The checkpoint's, where the file that data.tokenizer names has gone."""
  if past is None or not config.traits.text or config.data.tokenizer.is_there():
    return None
  return past.tokenizer


def other_tokenizer(config: Config, own: Tokenizer) -> str:
  """Says so if data.tokenizer is not `own` (any more), else ''."""
  given = config.data.tokenizer
  if not given.is_there():
    return f'{given.shown()} is not there'
  try:
    same = given.load().fingerprint == own.fingerprint
  except UserError as error:
    return str(error)
  return '' if same else f'{given.shown()} is not the tokenizer of the run'


def check_data(past: Past | None, config: Config, data: Any) -> list[str]:
  """Refuses data that the run was not made with; returns what is to be said instead.

  Raises:
    UserError: another tokenizer; or other documents, rows or classes and not
      data.accept_changed; or the processes of a run have different data.
  """
  _check_same_everywhere(data)
  if past is None:
    return _check_restored(config, data)
  other = _other_needs(past, config, data)
  if other and config.traits.text:
    raise UserError(
      f'{other} of the run in {past.workdir}; give that one, or move this one away and '
      'the copy in the checkpoint is taken'
    )
  if other and not past.record:
    raise UserError(f'{config.data.source.shown()}: {other} in {past.workdir}')
  notes = [past.unknown()] if past.unknown() else []
  if change := past.change(data, ('train', 'validation')):
    what = f'the data are not those of step {past.step} in {past.workdir}: {change}'
    if not config.data.accept_changed:
      raise UserError(
        f'{config.data.source.shown()}: {what}; put them back, or go on with these '
        'by --config.data.accept_changed=True'
      )
    notes.append(what)
  if own_tokenizer(past, config):
    missing = f'{config.data.tokenizer.shown()} is not there'
    notes.append(f'{missing}: the copy in the checkpoint of step {past.step} is used')
  return notes


def _check_restored(config: Config, data: Any) -> list[str]:
  """Parameters mean nothing without the tokenizer or the classes they were made for."""
  if not config.restore:
    return []
  past = load_past(config.restore, 'restore')
  both_text = past.parsed.traits.text and config.traits.text
  if past.parsed.task != config.task and not both_text:  # its parameters do not fit either
    return []
  other = _other_needs(past, config, data)
  if other and not config.data.accept_changed:
    raise UserError(
      f'restore={config.restore!r}: {other} there; give the same, or accept it by '
      '--config.data.accept_changed=True'
    )
  return [f'restore={config.restore!r}: {other} there'] if other else []


def _other_needs(past: Past, config: Config, data: Any) -> str:
  """In what the tokenizer or the classes are not those of the checkpoint, or ''."""
  now = data.describe()
  # A chat template counts by the conversations that it writes, which are data.
  own = lambda needs: {name: x for name, x in needs.items() if name != 'chat_template'}
  if own(now) == own(past.needs):
    return ''
  if config.traits.text:
    return f'{config.data.tokenizer.shown()} is not the tokenizer'
  names = lambda needs: ', '.join(needs['class_names']) or '(none)'
  return f'the classes {names(now)} are not {names(past.needs)} as'


def _check_same_everywhere(data: Any) -> None:
  """Each process reads its share of the rows, which must be of the same data."""
  if jax.process_count() == 1:
    return
  own = bytes.fromhex(fingerprint(data.record()['splits'], data.describe()))
  found = multihost_utils.process_allgather(np.frombuffer(own, np.uint8))
  other = [i for i, theirs in enumerate(found) if theirs.tobytes() != own]
  if other:
    raise UserError(
      f'data: process {jax.process_index()} has other data than process {other[0]}; all '
      'need the same files and the same tokenizer'
    )
