"""The record of runs that have ended: a file of JSON lines, only ever added to.

One line a run: what it was (`config`, its whole tree with the version that wrote it, less
what depends on the machine), what came of it (`status`, `values` after the last step, a
thin `curve`), how large it was (`size`), and where it ran (`commit`, `device`, `versions`,
also of `python` and, as a fingerprint, of `data`; `seconds`). Lines of before some of this
was written down lack it.

A run is recognised by its config as today's code reads it, lifted and filled, and not by
a hash of long ago: a field that is younger than the run has its default, a default that
changed since has not. So the first default of a new field says what runs of before it did;
a later one needs their lines to have the field first. Where the code behind a config was
put right since, the line lacks the name of that revision, and is none of that config.
"""

import dataclasses
import fcntl
import functools
import hashlib
import json
import os
import pathlib
import sys
from collections.abc import Iterable
from typing import Any

from elas_jax.common.errors import UserError
from elas_jax.common.limits import shown
from elas_jax.config import schema
from elas_jax.config.config import Config, filled
from elas_jax.config.migrate import lifted
from elas_jax.run.continuation import MACHINE_FIELDS
from elas_jax.run.metrics import strict_json
from elas_jax.run.revisions import older, revisions

# What no result depends on: places, processes, buffers, and what only looks at a run.
LEFT_OUT = (
  *MACHINE_FIELDS,
  'train.compilation_cache',
  'train.tensorboard',
  'eval.measures',
)
FINISHED, DIVERGED = 'finished', 'diverged'
IS_NONE = 'is no line of a run: '
SIZES = {'parameters', 'parameter_bytes', 'buffer_bytes', 'optimizer_bytes'}


@dataclasses.dataclass(frozen=True)
class Recorded:
  """A run that has ended.

  Attributes:
    fingerprint: the name of the run, that of its config when it was recorded.
    config: as a tree; `parsed` is what today's code makes of it.
    status: 'finished', or 'diverged' at `step`.
    values: of the evaluation after the last step.
    size: parameters; bytes of parameters, buffers and optimiser; FLOPs of a unit.
    curve: name -> [[step, value], ...], a few of them.
    revisions: of the code behind the config that it was made with.
    data: fingerprint of the rows that it was trained on; '' if not written down.
  """

  fingerprint: str
  config: dict[str, Any]
  status: str
  step: int | None = None
  values: dict[str, float] = dataclasses.field(default_factory=dict)
  size: dict[str, float] = dataclasses.field(default_factory=dict)
  curve: dict[str, list[list[float]]] = dataclasses.field(default_factory=dict)
  revisions: tuple[str, ...] = ()
  commit: str = ''
  device: str = ''  # which, or how many cores of what
  platform: str = ''  # cpu, gpu or tpu; '' is a CPU: it was not written down at first
  versions: dict[str, str] = dataclasses.field(default_factory=dict)
  data: str = ''
  seconds: float | None = None  # of training; None if it was stopped and continued
  time: str = ''

  @functools.cached_property
  def parsed(self) -> Config:
    return filled(lifted(self.config))

  @property
  def short_commit(self) -> str:
    """Twelve digits of each, with '-modified' where the tree was."""
    return ', '.join(x[:12] + x[40:] for x in self.commit.split(', '))

  @functools.cached_property
  def key(self) -> str:
    """What it shares with every run that is the same, however old what stored it is."""
    return key(self.parsed, self.revisions)

  @functools.cached_property
  def key_without_revisions(self) -> str:
    return key(self.parsed, ())


@functools.lru_cache(maxsize=8192)  # a table asks for all of its own after every run
def key(config: Config, names: tuple[str, ...] | None = None) -> str:
  """The fingerprint of what can change the numbers of a run: fields, and revisions.

  `names` are those of the revisions that it is made with; None: all of today's.
  """
  names = revisions(config) if names is None else names
  text = _text(portable(schema.tree(config))) + json.dumps(list(names))
  return hashlib.sha256(text.encode()).hexdigest()[:12]


def portable(tree: dict[str, Any]) -> dict[str, Any]:
  """A config's tree without LEFT_OUT."""
  tree = {k: dict(v) if isinstance(v, dict) else v for k, v in tree.items()}
  for field in LEFT_OUT:
    section, name = field.split('.')
    tree[section].pop(name, None)
  return tree


class Record:
  """Recorded runs by what they are; the last of a kind counts."""

  def __init__(self, runs: Iterable[Recorded]):
    self.runs = {run.key: run for run in runs}
    self._older = {run.key_without_revisions: run for run in self.runs.values()}

  def find(self, config: Config) -> Recorded | None:
    return self.runs.get(key(config))

  def before(self, config: Config) -> Recorded | None:
    """The run of this config that was made before a revision of the code, if any."""
    names = (key(config, ()), key(older(config), ()))
    found = next((self._older[x] for x in names if x in self._older), None)
    return found if found and not set(revisions(config)) <= set(found.revisions) else None


def read(path: pathlib.Path) -> list[Recorded]:
  """The runs of a record, in order; [] without a file.

  A last line that a kill cut short is dropped, and said; blank lines are none.

  Raises:
    UserError: another line is damaged, or a later version of the code wrote it.
  """
  try:
    with path.open('rb') as file:
      fcntl.flock(file, fcntl.LOCK_SH)
      return _runs(path, file.read())
  except FileNotFoundError:
    return []
  except OSError as error:
    raise UserError(f'{path}: cannot be read: {error.strerror}') from None


def append(path: pathlib.Path, run: Recorded) -> None:
  """Adds a run where it is not there with these values; several processes may do so at the
  same time.

  Raises:
    UserError: the file is damaged, as in `read`, or cannot be written.
  """
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('ab+') as file:
      fcntl.flock(file, fcntl.LOCK_EX)
      file.seek(0)
      content = file.read()
      known = Record(_runs(path, content)).runs.get(run.key)
      if known and run.values.keys() <= known.values.keys():
        return
      whole, _ = _parted(content)
      file.truncate(min(len(whole), len(content)))
      file.write(whole[len(content) :] + (line_of(run) + '\n').encode())
      file.flush()
      os.fsync(file.fileno())
  except OSError as error:
    raise UserError(f'{path}: cannot be written: {error.strerror}') from None


def line_of(run: Recorded) -> str:
  tree = {x.name: getattr(run, x.name) for x in dataclasses.fields(run)}
  return _text(json.loads(strict_json({k: v for k, v in tree.items() if v or v == 0})))


def _runs(path: pathlib.Path, content: bytes) -> list[Recorded]:
  whole, torn = _parted(content)
  if torn.strip():
    _say(f'{path}: its last line was cut short and is dropped')
  found = []
  for number, line in enumerate(whole.splitlines(), start=1):
    try:
      found += [_run(line)] if line.strip() else []
    except UserError as error:  # it says what is accepted
      raise UserError(f'{path}:{number}: {error}') from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
      raise UserError(f'{path}:{number}: {IS_NONE}{error!r}') from None
  return found


def _parted(content: bytes) -> tuple[bytes, bytes]:
  """The lines, each with its newline, and what a kill has cut short behind them."""
  whole, newline, rest = content.rpartition(b'\n')
  try:
    json.loads(rest)
  except ValueError:
    return whole + newline, rest
  return content + b'\n', b''  # an editor has left out the last newline


def _object(line: bytes) -> dict[str, Any]:
  """The JSON of a line that may be of a run."""
  try:
    tree = json.loads(line.decode())
  except UnicodeDecodeError as error:
    raise UserError(f'{IS_NONE}not UTF-8 at byte {error.start}') from None
  except json.JSONDecodeError as error:
    rest = error.doc[error.pos :].rstrip()
    fault = f'not JSON at {shown(rest[:20])}' if rest else 'it breaks off'
    raise UserError(f'{IS_NONE}{fault}') from None
  if not isinstance(tree, dict):
    text = line.decode()[:60]
    raise UserError(f'{IS_NONE}{text}, where there must be an object of JSON')
  return tree


@functools.lru_cache(maxsize=65536)  # the file is read after every run
def _run(line: bytes) -> Recorded:
  tree = _object(line)
  fields = {x.name for x in dataclasses.fields(Recorded)}
  if unknown := sorted(tree.keys() - fields):
    raise UserError(
      f'{unknown[0]!r} is unknown, maybe of a later version of this code: must be one of '
      + ', '.join(sorted(fields))
    )
  versions = tree.get('versions', {})
  if isinstance(versions, dict) and 'data' in versions:  # where it first stood
    tree |= {'data': versions.pop('data')}
  if lacking := [x for x in ('fingerprint', 'config', 'status') if x not in tree]:
    raise UserError(f'{IS_NONE}has no {", ".join(lacking)}')
  run = Recorded(**tree | {'revisions': tree.get('revisions', [])})
  if run.status not in (FINISHED, DIVERGED):
    raise UserError(f'status={run.status!r}: must be {FINISHED!r} or {DIVERGED!r}')
  _check_form(run)
  run = dataclasses.replace(run, revisions=tuple(run.revisions))
  _ = run.key  # the config is one that today's code reads
  return run


def _check_form(run: Recorded) -> None:
  """Raises UserError for a field whose value is of another form than `Recorded` says."""
  of = lambda x, fits: isinstance(x, dict) and all(map(fits, x.values()))
  number = lambda x: x is None or type(x) in (int, float)
  text = lambda x: isinstance(x, str)
  texts = lambda x: isinstance(x, list) and all(map(text, x))
  point = lambda x: isinstance(x, list) and len(x) == 2 and all(map(number, x))
  points = lambda x: isinstance(x, list) and all(map(point, x))
  forms = {
    'values': (of(run.values, number), 'name -> number'),
    'size': (of(run.size, number), 'name -> number'),
    'curve': (of(run.curve, points), 'name -> [[step, number], ...]'),
    'versions': (of(run.versions, text), 'package -> version'),
    'revisions': (texts(run.revisions), 'a list of texts'),
  }
  for name in ('fingerprint', 'commit', 'device', 'platform', 'data', 'time'):
    forms[name] = text(getattr(run, name)), 'a text'
  for name, (fits, form) in forms.items():
    if not fits:
      raise UserError(f'{name}={str(getattr(run, name))[:60]}: must be {form}')
  if run.size and (lacking := sorted(SIZES - run.size.keys())):
    raise UserError(f'size: has no {lacking[0]}; must have {", ".join(sorted(SIZES))}')


@functools.cache  # said once
def _say(message: str) -> None:
  print(message, file=sys.stderr)


def _text(tree: Any) -> str:
  return json.dumps(tree, sort_keys=True, separators=(',', ':'), allow_nan=False)
