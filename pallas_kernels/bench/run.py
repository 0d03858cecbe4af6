"""A run of the checks: its record, its folder, the time it has, and what it starts.

The folder never has more than MOST_FILES files. What is beside the results (logs, dumps)
gathers in a temporary folder, of which rest.tar.gz is made after every step.
"""

import contextlib
import dataclasses
import os
import pathlib
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
from typing import Any

from pallas_kernels.bench import report
from pallas_kernels.bench.environment import ROOT, child_environment
from pallas_kernels.bench.tied import tied
from pallas_kernels.bench.workers import Worker, without_folders

MOST_FILES = 8
RECORD, TABLES, REST = 'gpu_check.json', 'gpu_check.md', 'rest.tar.gz'
LONGEST_LOG = 4_000_000  # characters
NOT_AVAILABLE = 'not available'


@dataclasses.dataclass(frozen=True)
class Options:
  """What the steps are told.

  Attributes:
    tokens: T of every shape.
    only: a regular expression: of what the steps could measure, this; None for the usual.
    repetitions: turns of every peer.
    wheels: a folder of packages that the commands need besides.
  """

  tokens: int = 16384
  only: str | None = None
  repetitions: int = 7
  wheels: pathlib.Path | None = None


class Run:
  """Attributes:
  record: what is known; `save` writes it.
  end: of time.monotonic(), when all must be over.
  log, rest: a file and a folder for what is no result.
  worker: the process that measures; it starts when it is first called.
  """

  def __init__(self, out: pathlib.Path, *, seconds: float, options: Options = Options()):
    self.out, self.options = out, options
    self.end = time.monotonic() + seconds
    out.mkdir(parents=True, exist_ok=True)
    self._temporary = tempfile.TemporaryDirectory(prefix='gpu_check_')
    folder = pathlib.Path(self._temporary.name)
    self.rest, self.packages = folder / 'rest', folder / 'packages'
    self.rest.mkdir()
    self.log = self.rest / 'workers.log'
    self.worker = Worker(self.log)
    self.record = {
      'commit': report.commit(),
      'source': report.source(),
      'tokens': options.tokens,
      'repetitions': options.repetitions,
      'seed': int(time.time()) % 2**31,
      'checks': {},
      'items': [],
      'sweeps': {},
      'steps': {},
    }

  def __enter__(self) -> 'Run':
    return self

  def __exit__(self, *_) -> None:
    self.worker.close()
    self.save()
    self.pack()
    self._temporary.cleanup()

  def step(self, name: str, verdict: str, start: float | None = None, **more: Any) -> None:
    """Keeps and prints how a step went that began at `start`; None if it did not."""
    seconds = 0.0 if start is None else round(time.monotonic() - start, 1)
    self.record['steps'][name] = {'verdict': verdict, 'seconds': seconds, **more}
    print(f'{name}: {verdict} ({seconds:.0f} s)', flush=True)
    self.save()

  def save(self) -> None:
    report.write_json(self.out / RECORD, self.record)
    report.write(self.out / TABLES, report.render(self.record))

  def pack(self) -> None:
    """Makes rest.tar.gz, with the files that are too many: tables go before records do."""
    files = [path for path in self.out.rglob('*') if path.is_file()]
    first = (RECORD, TABLES, REST)
    importance = lambda path: (path.name not in first, path.suffix != '.json', str(path))
    kept = [path for path in sorted(files, key=importance) if path.name != REST]
    for path in kept[MOST_FILES - 1 :]:
      moved = self.rest / path.relative_to(self.out)
      moved.parent.mkdir(parents=True, exist_ok=True)
      shutil.move(path, moved)
    for log in self.rest.rglob('*.log'):
      log.write_text(without_folders(log.read_text(errors='replace'))[-LONGEST_LOG:])
    part = self.out / f'.{REST}.part'
    with tarfile.open(part, 'w:gz') as archive:
      archive.add(self.rest, 'rest')
    os.replace(part, self.out / REST)

  def command(self, name: str, words: list[str], end: float) -> None:
    """Runs `python -m words` until `end` at most, as the step `name`.

    Exit status 2 with a line that says 'not available' is no failure.
    """
    start, log = time.monotonic(), self.rest / f'{name.replace(" ", "_")}.log'
    try:
      environment = self._with_packages()
    except RuntimeError as error:
      self.step(name, f'failed: {error}', start)
      return
    status = _run(words, environment, log, end)
    lines = without_folders(log.read_text(errors='replace')).strip().splitlines()
    said = [line for line in lines if NOT_AVAILABLE in line]
    if status == 2 and said:
      verdict = said[-1][said[-1].index(NOT_AVAILABLE) :]
    else:
      stopped = f'stopped after {time.monotonic() - start:.0f} s'
      verdict = {None: stopped, 0: 'passed'}.get(status, f'failed, status {status}')
    self.step(name, verdict, start, last_lines=lines[-5:])

  def _with_packages(self) -> dict[str, str]:
    """The environment of commands; installs the wheels first, once.

    Raises:
      RuntimeError: where they cannot be installed.
    """
    if self.options.wheels is None:
      return child_environment()
    if not self.packages.exists():
      wheels = sorted(map(str, self.options.wheels.glob('*.whl')))
      words = ['pip', 'install', '--quiet', '--no-index', '--no-deps']
      words += ['--no-compile', '--disable-pip-version-check', f'--target={self.packages}']
      log = self.rest / 'wheels.log'
      if _run([*words, *wheels], child_environment(), log, self.end) != 0:
        shutil.rmtree(self.packages, ignore_errors=True)
        said = without_folders(log.read_text(errors='replace')).strip().splitlines()
        errors = [line for line in said if line.startswith('ERROR')] or said[-1:]
        raise RuntimeError(f'--wheels: {errors[0] if errors else "no time was left"}')
    path = os.environ.get('PYTHONPATH', '')
    given = {**os.environ, 'PYTHONPATH': f'{path}{os.pathsep}{self.packages}'}
    return child_environment(given)


def _run(
  words: list[str], environment: dict[str, str], log: pathlib.Path, end: float
) -> int | None:
  """Exit status of `python -m words`, or None if it was stopped, with all it started."""
  with log.open('ab') as file:
    process = subprocess.Popen(
      tied(*words),
      cwd=ROOT,
      env=environment,
      stdout=file,
      stderr=file,
      start_new_session=True,
    )
    try:
      return process.wait(max(0.0, end - time.monotonic()))
    except subprocess.TimeoutExpired:
      return None
    finally:
      with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
      process.wait()
