"""Metrics of a run: metrics.jsonl, the source of truth, and TensorBoard beside it.

The first line describes the run (commit, versions, device, and under `continued` what of
these was another when it went on); each further line is one object with `step` and values,
or a `note` in words. JSON has no NaN and no infinity: a value that is not finite is null
there, and None for readers, which use `read_metrics`.
"""

import datetime
import importlib.metadata
import json
import math
import os
import pathlib
import platform
import re
import subprocess
import sys
from typing import Any

import jax

from elas_jax.common.errors import UserError
from elas_jax.common.places import write_text
from elas_jax.run.follow import parse_line

PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'numpy')


def describe_run() -> dict[str, Any]:
  """Commit, versions and device, for the first line of metrics and for result files."""
  devices = jax.devices()
  return {
    'time': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
    'commit': _commit(),
    'python': platform.python_version(),
    'versions': {name: importlib.metadata.version(name) for name in PACKAGES},
    'device': devices[0].device_kind,
    'platform': devices[0].platform,
    'machine': machine(),
    'devices': len(devices),
    'processes': jax.process_count(),
  }


def machine() -> str:
  """The accelerator, or how many cores of what this process may use."""
  devices = jax.devices()
  if devices[0].platform != 'cpu':
    return f'{len(devices)} x {devices[0].device_kind}'
  cpuinfo = pathlib.Path('/proc/cpuinfo')
  text = cpuinfo.read_text() if cpuinfo.exists() else ''
  found = re.search(r'model name\s*:\s*(.+)', text)
  # Python 3.13 has os.process_cpu_count for this.
  own = getattr(os, 'sched_getaffinity', lambda pid: range(os.cpu_count() or 1))
  cores = f'{count} cores' if (count := len(own(0))) > 1 else 'a core'
  return f'{cores} of {found[1] if found else platform.machine()}'


def _commit() -> str:
  """The commit of the source tree, with '-modified' if the tree differs from it."""
  root = pathlib.Path(__file__).parent
  git = lambda *words: subprocess.run(
    ['git', '-C', str(root), *words], capture_output=True, text=True
  )
  try:
    # An installed package may lie in somebody else's repository.
    own = git('ls-files', '--error-unmatch', pathlib.Path(__file__).name)
    head = git('rev-parse', 'HEAD')
    if own.returncode or head.returncode:
      return 'unknown'
    # Results are written while runs go on, and nothing is computed from them.
    results = (f':(exclude,top){name}/results' for name in ('experiments', 'benchmarks'))
    where = ('--untracked-files=no', '--', ':/', *results)
    modified = git('status', '--porcelain', *where).stdout.strip()
  except OSError:  # no git on this machine
    return 'unknown'
  return head.stdout.strip() + ('-modified' if modified else '')


def strict_json(value: Any, indent: int | None = None) -> str:
  """JSON as its standard has it: numbers that are not finite become null."""
  return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
  if isinstance(value, dict):
    return {name: _finite(x) for name, x in value.items()}
  if isinstance(value, list | tuple):
    return [_finite(x) for x in value]
  return None if isinstance(value, float) and not math.isfinite(value) else value


class MetricsWriter:
  """Appends to workdir/metrics.jsonl; process 0 only, nothing on the others.

  Opening it for a run that resumes at `start_step` drops the lines of later steps,
  which will be computed again, and a last line that a kill cut short.
  """

  def __init__(self, workdir: pathlib.Path, start_step: int, tensorboard: bool):
    self._file = self._tensorboard = None
    if jax.process_index():
      return
    path = workdir / 'metrics.jsonl'
    kept = [line for line in _lines(path) if line.get('step', 0) <= start_step]
    now = describe_run()
    kept = kept or [{'run': now}]
    _add_continuation(kept[0]['run'], start_step, now)
    if start_step and not any('step' in line for line in kept):
      lost = f'metrics.jsonl: the lines of steps 1 to {start_step} are lost'
      print(lost, file=sys.stderr)
      kept.append({'step': start_step, 'note': lost})
    if tensorboard:
      self._tensorboard = _tensorboard(workdir / 'tensorboard', start_step)
    write_text(path, ''.join(strict_json(line) + '\n' for line in kept))
    self._file = path.open('a')

  def write(self, step: int, values: dict[str, float]) -> None:
    """One line; every value becomes a float here and nowhere else."""
    if self._file is None:
      return
    values = {name: float(value) for name, value in values.items()}
    self._file.write(strict_json({'step': step, **values}) + '\n')
    self._file.flush()
    if self._tensorboard:
      for name, value in values.items():
        self._tensorboard.add_scalar(name, value, step)

  def note(self, step: int, text: str) -> None:
    """A line for readers: what is not as it was when the run reached `step`."""
    if self._file is not None:
      self._file.write(strict_json({'step': step, 'note': text}) + '\n')
      self._file.flush()

  def sync(self) -> None:
    """Forces what is written onto the disk; called before a checkpoint is saved."""
    if self._file is not None:
      os.fsync(self._file.fileno())

  def close(self) -> None:
    if self._file is not None:
      self._file.close()
    if self._tensorboard:
      self._tensorboard.close()


def _add_continuation(run: dict[str, Any], step: int, now: dict[str, Any]) -> None:
  """Adds to the description what changes at `step`: commit, versions, devices."""
  if not step:
    return
  parts = run.get('continued', [])
  last = {name: x for part in (run, *parts) for name, x in part.items()}
  changed = {name: x for name, x in now.items() if name != 'time' and last.get(name) != x}
  if changed:
    run['continued'] = [*parts, {'step': step, 'time': now.get('time'), **changed}]


def read_metrics(workdir: str | pathlib.Path) -> tuple[dict[str, Any], list[dict]]:
  """(description of the run, lines with `step`) of a workdir."""
  lines = _lines(pathlib.Path(workdir) / 'metrics.jsonl')
  if not lines:
    raise UserError(f'{workdir}: no run has written metrics.jsonl there')
  return lines[0]['run'], lines[1:]


def _lines(path: pathlib.Path) -> list[dict]:
  """The lines of metrics.jsonl, none if there is no file.

  A last line that is cut short or otherwise broken was being written when a run or its
  machine stopped; it is left out, and that is said.

  Raises:
    UserError: another line is broken.
  """
  if not path.exists():
    return []
  texts = path.read_bytes().splitlines(keepends=True)
  lines = []
  for number, text in enumerate(texts, 1):
    try:
      if not text.endswith(b'\n'):
        raise ValueError('it is cut short')
      lines.append(parse_line(text, first=number == 1))
    except ValueError as error:  # JSON, UTF-8 or the check of the line
      if number < len(texts):
        raise UserError(
          f'{path}: line {number} is damaged ({error}); mend or delete that line'
        ) from error
      print(f'{path}: the last line is left out ({error})', file=sys.stderr)
  return lines


def _tensorboard(directory: pathlib.Path, start_step: int) -> Any:
  try:
    import tensorboardX
  except ImportError:
    raise UserError(
      'train.tensorboard=True: needs the package tensorboardX '
      "(pip install 'elas-jax[tensorboard]')"
    ) from None
  # purge_step hides the events that the resumed run writes again.
  return tensorboardX.SummaryWriter(str(directory), purge_step=start_step + 1)
