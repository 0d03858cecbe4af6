"""A run seen from outside: its config.json and metrics.jsonl, read as they grow.

Nothing is written or locked, and no JAX is imported: the run may be of another process, or
of another machine with the same file system, and of an older or a newer version.
"""

import collections
import json
import math
import os
import pathlib
import stat
from typing import Any, NamedTuple

from elas_jax.run import diverged

CURVE = 4096  # points of the loss that are kept; beyond it every second one goes
TAIL = 256  # bytes before what was read, which show whether the file is the same still
PACES = 32  # readings over which the time of a step is taken
PATIENCE = 10  # times the usual time between two lines: longer is a stall
GIVEN_UP = 12  # times that again: nobody waits for it


def parse_line(text: bytes, first: bool) -> dict:
  """The first line has `run`, the others `step`; ValueError for anything else."""
  line = json.loads(text.decode().rstrip('\n'))
  field, kind = ('run', dict) if first else ('step', int)
  if not isinstance(line, dict) or not isinstance(line.get(field), kind):
    raise ValueError(f'no {field!r} in it')
  return line


class Newest(NamedTuple):
  """A value, NaN if it was not finite, and the step that it is of."""

  step: int
  value: float


class Followed:
  """What is known of the run in `workdir`; `poll` brings it up to date.

  Attributes:
    config: the tree of config.json, {} while there is none.
    begun: whether there is a config.json or a line of metrics.
    step: the newest with a line.
    values: the newest of each name.
    curve: (step, train/loss), thinned out.
    note: the newest, with its step, or None.
    damage: what cannot be read, or ''.
    changes: counts the polls that found something new.
  """

  def __init__(self, workdir: pathlib.Path):
    self.workdir = workdir
    self.config, self.changes = {}, 0
    self._config_seen, self._config_damage, self._reading = None, '', ''
    self._forget()

  def _forget(self) -> None:
    """Before the first line of a file that was not read before."""
    self.step, self.values, self.curve, self.note = 0, {}, [], None
    self._seen = None  # of the file: inode, size, time of the last change
    self._offset, self._tail, self._lines = 0, b'', 0
    self._damages, self._thinning, self._skipped = [], 1, 0
    self._paces = collections.deque(maxlen=PACES)

  @property
  def begun(self) -> bool:
    return bool(self._config_seen or self._lines)

  @property
  def damage(self) -> str:
    more = len(self._damages) - 1
    lines = ''.join(self._damages[:1]) + (f' and {more} more' if more > 0 else '')
    return '; '.join(filter(None, (self._config_damage, self._reading, lines)))

  @property
  def changed(self) -> float | None:
    """When the last line was written, by the clock of the file system."""
    return self._seen[2] / 1e9 if self._seen else None

  def poll(self) -> None:
    """Reads what has been added since the last time."""
    before = self._seen, self._config_seen, self.damage
    self._read_config()
    self._reading = ''
    try:
      self._read_metrics()
    except FileNotFoundError:
      self._forget()
    except OSError as error:  # a file system of the network may be back the next time
      self._reading = f'metrics.jsonl: cannot be read: {error.strerror}'
    self.changes += before != (self._seen, self._config_seen, self.damage)

  def _read_config(self) -> None:
    path = self.workdir / 'config.json'
    try:
      seen = _identity(path.stat())
      if seen == self._config_seen:
        return
      config = json.loads(_regular(path).read_text())
      if not isinstance(config, dict):
        raise ValueError('no fields in it')
      self.config, self._config_seen, self._config_damage = config, seen, ''
    except FileNotFoundError:
      self.config, self._config_seen, self._config_damage = {}, None, ''
    except (ValueError, RecursionError) as error:  # JSON, UTF-8 or the check
      self._config_seen, self._config_damage = seen, f'config.json is damaged ({error})'
    except OSError as error:
      self._config_damage = f'config.json: cannot be read: {error.strerror}'

  def _read_metrics(self) -> None:
    """Takes whole lines; one that is not whole yet is read again the next time."""
    path = self.workdir / 'metrics.jsonl'
    if self._seen == _identity(path.stat()):
      return
    with _regular(path).open('rb') as file:
      now = _identity(os.fstat(file.fileno()))
      if not self._same(file, now):
        self._forget()
      step = self.step
      file.seek(self._offset)
      for text in file:
        if not text.endswith(b'\n'):
          break
        self._take(text)
        self._offset += len(text)
        self._tail = (self._tail + text)[-TAIL:]
    self._seen = now
    if self.step > step:
      self._paces.append((self.changed, self.step))

  def _same(self, file: Any, now: tuple[int, int, int]) -> bool:
    """Whether what was read still stands there.

    A run that is continued puts another file in its place, without the lines of later
    steps. Inodes are used again, and sizes may be equal: so the last bytes are compared.
    """
    if not self._seen or now[0] != self._seen[0] or now[1] < self._offset:
      return False
    file.seek(self._offset - len(self._tail))
    return file.read(len(self._tail)) == self._tail

  def _take(self, text: bytes) -> None:
    self._lines += 1
    try:
      line = parse_line(text, first=self._lines == 1)
    except (ValueError, RecursionError) as error:
      self._damages.append(f'metrics.jsonl: line {self._lines} is damaged ({error})')
      return
    step = line.pop('step', None)
    if step is None:  # the description of the run
      return
    self.step = max(self.step, step)
    if isinstance(note := line.pop('note', None), str):
      self.note = step, note
    for name, x in line.items():
      if x is None or isinstance(x, int | float):
        self.values[name] = Newest(step, _number(x))
    if math.isfinite(loss := _number(line.get('train/loss'))):
      self._add(step, loss)

  def _add(self, step: int, loss: float) -> None:
    self._skipped += 1
    if self._skipped >= self._thinning:
      self._skipped = 0
      self.curve.append((step, loss))
    if len(self.curve) > CURVE:
      self.curve, self._thinning = self.curve[::2], 2 * self._thinning

  def field(self, name: str) -> int | None:
    """A positive whole number of the config, such as train.steps; None: there is none."""
    tree: Any = self.config
    for part in name.split('.'):
      tree = tree.get(part) if isinstance(tree, dict) else None
    return tree if isinstance(tree, int) and tree > 0 else None

  def seconds_per_step(self) -> float | None:
    """What a step takes, None if nothing says so.

    The time between the lines that were seen to come, with evaluations and checkpoints in
    it; before there are two such, the units of a step by the speed of the last line, with
    neither. Units are rows of full length: of documents that are shorter it is too much.
    """
    if len(self._paces) > 1:
      (start, first), (end, last) = self._paces[0], self._paces[-1]
      if end > start:
        return (end - start) / (last - first)
    units = self.field('data.batch_size')
    for unit, in_row in (
      ('tokens', self.field('data.sequence_length')),
      ('examples', 1),
      ('pairs', 1),
    ):
      speed = self.values.get(f'train/{unit}_per_second')
      if units and in_row and speed and 0 < speed.value < math.inf:
        return units * in_row / speed.value
    return None

  def seconds_left(self, now: float) -> float | None:
    """To the last step, from the time of the last line on."""
    steps, pace = self.field('train.steps'), self.seconds_per_step()
    if not steps or pace is None or self.changed is None:
      return None
    return max((steps - self.step) * pace - max(now - self.changed, 0.0), 0.0)

  @property
  def diverged(self) -> bool:
    """Whether a loss or a gradient that is not finite has ended it."""
    evaluated = self.values.get('eval/loss')
    spoilt = evaluated is not None and not math.isfinite(evaluated.value)
    return spoilt or (self.workdir / diverged.MARK).exists()

  def quiet(self, now: float) -> float:
    """Seconds without a new line; clocks of two machines may differ a little."""
    since = self.changed or (self._config_seen[2] / 1e9 if self._config_seen else now)
    return max(now - since, 0.0)

  def state(self, now: float, stalled_after: float) -> str:
    """'not begun', 'running', 'stalled', 'stopped' or 'finished'.

    The files do not say that a run was killed: it is stalled, and after a long time
    stopped. One that diverged has ended at once.
    """
    if not self.begun:
      return 'not begun'
    steps, evaluated = self.field('train.steps'), self.values.get('eval/loss')
    if self.diverged:
      return 'stopped'
    if evaluated and steps and evaluated.step >= steps:
      return 'finished'
    usual = (self.seconds_per_step() or 0.0) * (self.field('train.log_every') or 1)
    limit = max(stalled_after, PATIENCE * usual)
    if self.quiet(now) <= limit:
      return 'running'
    return 'stalled' if self.quiet(now) <= GIVEN_UP * limit else 'stopped'


def _identity(found: os.stat_result) -> tuple[int, int, int]:
  return found.st_ino, found.st_size, found.st_mtime_ns


def _regular(path: pathlib.Path) -> pathlib.Path:
  """The path; to open a pipe would wait for whoever writes into it."""
  if not stat.S_ISREG(path.stat().st_mode):
    raise OSError(0, 'it is no file')
  return path


def _number(x: Any) -> float:
  """NaN for null, which stands for what is not finite, and for what is no number."""
  try:
    return math.nan if x is None else float(x)
  except (OverflowError, ValueError, TypeError):  # no number at all
    return math.nan
