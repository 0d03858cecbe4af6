"""Work that several processes share on one machine: who holds what, a core for each."""

import contextlib
import fcntl
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence

from elas_jax.common.errors import UserError

WORKER = 'ELAS_WORKER'  # the number of a process that was started here, in its environment


@contextlib.contextmanager
def claimed(folder: pathlib.Path, name: str) -> Iterator[bool]:
  """Whether this process holds `name` now; the system frees it at a kill.

  Raises:
    UserError: the folder cannot be written.
  """
  try:
    folder.mkdir(parents=True, exist_ok=True)
    lock = (folder / name).open('w')
  except OSError as error:
    raise UserError(f'{folder}: cannot be written: {error.strerror}') from None
  with lock:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      yield False
    else:
      yield True


@contextlib.contextmanager
def waited_for(folder: pathlib.Path, name: str) -> Iterator[None]:
  """Holds `name`, as soon as nobody else does."""
  while True:
    with claimed(folder, name) as mine:
      if mine:
        yield
        return
    time.sleep(1)


def run_workers(count: int, command: Sequence[str]) -> None:
  """The same command in so many processes, each on a core of its own where that can be.

  What they print has their number before it. They end with this process, by the end of
  their standard input (`end_with_parent`).

  Raises:
    UserError: there are not so many cores, or a process failed; the others went on.
  """
  can_pin = hasattr(os, 'sched_setaffinity')
  cores = sorted(os.sched_getaffinity(0)) if can_pin else list(range(os.cpu_count() or 1))
  if count > len(cores):
    raise UserError(f'--workers={count}: must be at most {len(cores)}, the cores there are')
  started = []
  try:
    for number, core in enumerate(cores[:count], 1):
      if can_pin:
        os.sched_setaffinity(0, {core})  # a child inherits it
      environment = os.environ | {WORKER: str(number)}
      pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE, 'text': True}
      pipes |= {'stderr': subprocess.STDOUT, 'errors': 'replace'}
      started.append(subprocess.Popen(command, env=environment, **pipes))
  finally:
    if can_pin:
      os.sched_setaffinity(0, cores)
  printers = [threading.Thread(target=_print, args=x) for x in enumerate(started, 1)]
  for printer in printers:
    printer.start()
  try:
    codes = [process.wait() for process in started]
  finally:
    for process in started:  # those that still run save and end
      process.stdin.close()
    for printer in printers:
      printer.join()
  if failed := [f'worker {n} with {code}' for n, code in enumerate(codes, 1) if code]:
    raise UserError(f'ended early: {", ".join(failed)}; the same command continues')


def _print(number: int, process: subprocess.Popen) -> None:
  with process.stdout as lines:
    try:
      for line in lines:
        print(f'[{number}] {line}', end='', flush=True)
    except BrokenPipeError:  # the reader of what is printed here, such as head, has gone
      process.stdin.close()
      for _ in lines:  # or it waits for somebody to read that, and never ends
        pass


def end_with_parent() -> bool:
  """Whether this is such a process; it gets SIGTERM, upon which training saves, then."""
  if WORKER not in os.environ:
    return False
  parent = os.getppid()

  def wait():
    sys.stdin.read()
    time.sleep(0.1)  # a killed parent closes its pipes before it is gone
    if os.getppid() != parent:  # nobody reads: printing must not end what is being saved
      nowhere = os.open(os.devnull, os.O_WRONLY)
      for stream in (1, 2):
        os.dup2(nowhere, stream)
    os.kill(os.getpid(), signal.SIGTERM)

  threading.Thread(target=wait, daemon=True).start()
  return True
