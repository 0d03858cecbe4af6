"""Functions called in a process of their own: GPU work that may hang or crash.

A kernel that waits forever, or that writes where it must not, takes its process with it.
The caller stops such a process and goes on with a fresh one.
"""

import contextlib
import importlib
import json
import math
import os
import pathlib
import queue
import re
import select
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from concurrent import futures
from typing import Any

from pallas_kernels.bench.environment import child_environment

LONGEST = 600  # characters of a reason
NO_TIME, HUNG = 'no time was left', 'no answer within'
_replies = None  # in a worker: where its answers go


class Worker:
  """A process that calls functions by name.

  Args:
    log: where its stderr goes, appended; None for nowhere.
  """

  def __init__(self, log: pathlib.Path | None = None):
    self.log = log
    self._process = None

  def __enter__(self) -> 'Worker':
    return self

  def __exit__(self, *_) -> None:
    self.close()

  def call(
    self, function: str, seconds: float, end: float = math.inf, **arguments: Any
  ) -> dict[str, Any]:
    """Calls 'module:function' with what JSON can hold.

    Args:
      seconds: how long it may go without a note.
      end: when it is stopped in any case, of time.monotonic().

    Returns:
      {'result': ...}, or {'failed': why, 'during': its last note or None}.
    """
    if self._process is None or self._process.poll() is not None:
      self._start()
    task = {'function': function, 'arguments': arguments}
    note = None
    try:
      self._process.stdin.write(json.dumps(task).encode() + b'\n')
      self._process.stdin.flush()
      while True:
        reply = self._next_line(min(time.monotonic() + seconds, end))
        if 'note' not in reply:
          break
        note = reply['note']
    except TimeoutError:
      reply = {'failed': f'{HUNG} {seconds:.0f} s; stopped'}
      if time.monotonic() >= end:
        reply, note = {'failed': NO_TIME}, None
      self.close()
    except (EOFError, BrokenPipeError):
      reply = {'failed': f'the process ended with status {self._process.wait()}'}
    return reply if 'result' in reply else reply | {'during': note}

  def close(self) -> None:
    if self._process is not None:
      self._process.kill()
      with contextlib.suppress(subprocess.TimeoutExpired):
        self._process.wait(10)  # longer, and the driver holds it
      self._process.stdin.close()
      self._process.stdout.close()
      self._process = None

  def _start(self) -> None:
    self.close()
    stderr = self.log.open('ab') if self.log else subprocess.DEVNULL
    self._process = subprocess.Popen(
      [sys.executable, '-m', 'pallas_kernels.bench.workers', str(os.getpid())],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=stderr,
      env=child_environment(),
    )
    if self.log:
      stderr.close()
    self._rest = b''

  def _next_line(self, deadline: float) -> dict[str, Any]:
    while b'\n' not in self._rest:
      left = deadline - time.monotonic()
      if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
        raise TimeoutError
      chunk = os.read(self._process.stdout.fileno(), 1 << 16)
      if not chunk:
        raise EOFError
      self._rest += chunk
    line, self._rest = self._rest.split(b'\n', 1)
    return json.loads(line)


def call_skipping(
  worker: Worker,
  function: str,
  seconds: float,
  end: float,
  known: dict[str, str] | None = None,
  **arguments: Any,
) -> tuple[dict[str, Any], dict[str, str]]:
  """A call of a function that takes `skip`, again without each part that ended it.

  The function names its parts by `note`. Those of `known` are left out from the start.
  Returns the last reply and {part: why}.
  """
  failed = dict(known or {})
  while True:
    reply = worker.call(function, seconds, end, skip=sorted(failed), **arguments)
    part = reply.get('during')
    if 'result' in reply or part is None or part in failed:
      return reply, failed
    failed[part] = reply['failed']


def run_all(
  function: str,
  tasks: list[dict[str, Any]],
  seconds: float,
  end: float,
  log: pathlib.Path | None = None,
  workers: int = 5,
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
  """(task, reply) of every task, by several processes; a task is what one call gets."""
  idle = queue.SimpleQueue()
  every = [Worker(log) for _ in range(workers)]
  for worker in every:
    idle.put(worker)

  def run(task):
    worker = idle.get()
    try:
      if time.monotonic() >= end:
        return {'failed': NO_TIME, 'during': None}
      return worker.call(function, seconds, end, **task)
    finally:
      idle.put(worker)

  try:
    with futures.ThreadPoolExecutor(workers) as pool:
      yield from zip(tasks, pool.map(run, tasks))
  finally:
    for worker in every:
      worker.close()


def note(text: str) -> None:
  """Tells the caller what the function is at, should it not come back."""
  if _replies is not None:
    print(json.dumps({'note': text}), file=_replies, flush=True)


def reason(error: BaseException) -> str:
  """An exception in one line, without the folders of this machine."""
  return without_folders(f'{type(error).__name__}: {" ".join(str(error).split())}')[
    :LONGEST
  ]


def without_folders(text: str) -> str:
  return re.sub(r'(?<![\w.])(?:/[\w.+-]+)+/(?=[\w.<-])', '', text)


def fatal(error: BaseException) -> bool:
  """Whether the process should not use its GPU any more: such errors stay."""
  return 'CUDA' in str(error) or 'INTERNAL' in str(error)


def _main(parent: int) -> None:
  global _replies
  _replies = os.fdopen(os.dup(1), 'w')
  os.dup2(2, 1)  # what anything prints goes to the log
  threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
  # The functions import this module under its name.
  importlib.import_module('pallas_kernels.bench.workers')._replies = _replies
  for line in sys.stdin:
    task, ended = json.loads(line), False
    try:
      module, name = task['function'].split(':')
      function = getattr(importlib.import_module(module), name)
      reply = {'result': function(**task['arguments'])}
    except Exception as error:
      traceback.print_exc()
      reply, ended = {'failed': reason(error)}, fatal(error)
    print(json.dumps(reply), file=_replies, flush=True)
    if ended:
      os._exit(1)


def _end_with(parent: int) -> None:
  """A kernel that hangs would outlive a parent that was killed."""
  while os.getppid() == parent:
    time.sleep(1)
  os._exit(1)


if __name__ == '__main__':
  _main(int(sys.argv[1]))
