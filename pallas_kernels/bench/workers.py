"""Functions called in a process of their own: GPU work that may hang or crash.

A kernel that waits forever, or that writes where it must not, takes its process with it.
The caller stops such a process and goes on with a fresh one.
"""

import collections
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
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pallas_kernels.bench.environment import child_environment

LONGEST = 600  # characters of a reason
NO_TIME, HUNG = 'no time was left', 'no answer within'
RUN_SECONDS = 12  # for what is compiled already
REPEAT_SECONDS = 24  # for several runs of it
MOST_HANGS = 2  # of one operation, before the rest of it is left alone
_replies = None  # in a worker: where its answers go


class Worker:
  """A process that calls functions by name.

  Args:
    log: where its stderr goes, appended; None for nowhere.
    more: of its environment, besides child_environment().
  """

  def __init__(
    self, log: pathlib.Path | None = None, more: Mapping[str, str] | None = None
  ):
    self.log, self.more = log, more or {}
    self._process, self._killed = None, False

  def __enter__(self) -> 'Worker':
    return self

  def __exit__(self, *_) -> None:
    self.close()

  def call(
    self, function: str, seconds: float, end: float = math.inf, **arguments: Any
  ) -> dict[str, Any]:
    """Calls 'module:function' with what JSON can hold.

    Args:
      seconds: how long it may go without a note, unless the last note said how long.
      end: when it is stopped in any case, of time.monotonic().

    Returns:
      {'result': ...}, or {'failed': why, 'during': its last note or None}.
    """
    if self._process is None or self._process.poll() is not None:
      self._start()
    task = {'function': function, 'arguments': arguments}
    note, limit = None, seconds
    try:
      self._process.stdin.write(json.dumps(task).encode() + b'\n')
      self._process.stdin.flush()
      while True:
        reply = self._next_line(min(time.monotonic() + limit, end))
        if 'note' not in reply:
          break
        note, limit = reply['note'], reply['seconds'] or seconds
    except TimeoutError:
      reply = {'failed': f'{HUNG} {limit:.0f} s; stopped'}
      if time.monotonic() >= end:
        reply, note = {'failed': NO_TIME}, None
      self.close()
    except (EOFError, BrokenPipeError):
      reply = {'failed': f'the process ended with status {self._process.wait()}'}
    return reply if 'result' in reply else reply | {'during': note}

  def kill(self) -> None:
    """Ends the process for good, from any thread; a call that waits for it returns."""
    self._killed = True
    if (process := self._process) is not None:
      process.kill()

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
      env=child_environment() | self.more,
    )
    if self.log:
      stderr.close()
    self._rest = b''
    if self._killed:
      self._process.kill()

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


class Hangs:
  """Counts, by operation, the calls that never came back; some threads share it."""

  def __init__(self):
    self.counts = collections.Counter()

  def add(self, op: str, reply: dict[str, Any]) -> None:
    self.counts[op] += HUNG in reply.get('failed', '')

  def skips(self, op: str) -> str:
    """Why no more of this operation is tried, or ''."""
    hung = self.counts[op] >= MOST_HANGS
    return f'skipped: {MOST_HANGS} checks of {op} hung' if hung else ''


def run_all(
  function: str,
  tasks: list[dict[str, Any]],
  seconds: float,
  end: float,
  log: pathlib.Path | None = None,
  workers: int = max(2, min(8, (os.cpu_count() or 2) // 2)),
  op_of: Callable[[dict[str, Any]], str] = lambda task: 'all',
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
  """(task, reply) of every task, as they come, by several processes.

  Args:
    tasks: what one call gets, each.
    op_of: the operation of a task: after two of it have hung, the others are skipped.
  """
  waiting, done, hangs = queue.SimpleQueue(), queue.SimpleQueue(), Hangs()
  for task in tasks:
    waiting.put(task)
  every = [Worker(log) for _ in range(min(workers, len(tasks)))]
  stopped = threading.Event()

  def reply_to(task: dict[str, Any], worker: Worker) -> dict[str, Any]:
    if why := hangs.skips(op_of(task)):
      return {'failed': why, 'during': None}
    if time.monotonic() >= end:
      return {'failed': NO_TIME, 'during': None}
    reply = worker.call(function, seconds, end, **task)
    hangs.add(op_of(task), reply)
    return reply

  def work(worker: Worker) -> None:
    try:
      while not stopped.is_set():
        task = waiting.get_nowait()
        done.put((task, reply_to(task, worker)))
    except queue.Empty:
      pass
    except BaseException as error:  # is raised by the one who waits for results
      done.put((None, error))

  threads = [threading.Thread(target=work, args=(worker,)) for worker in every]
  try:
    for thread in threads:
      thread.start()
    for _ in tasks:
      task, reply = done.get()
      if isinstance(reply, BaseException):
        raise reply
      yield task, reply
  finally:
    stopped.set()
    for worker, thread in zip(every, threads):
      worker.kill()
      thread.join()
      worker.close()


def note(text: str, seconds: float | None = None) -> None:
  """Tells the caller what the function is at, should it not come back.

  Args:
    seconds: how long the caller is to wait for the next sign; None for as long as it said.
  """
  if _replies is not None:
    print(json.dumps({'note': text, 'seconds': seconds}), file=_replies, flush=True)


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
  threading.Thread(target=end_with, args=(parent,), daemon=True).start()
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


def end_with(parent: int) -> None:
  """A kernel that hangs would outlive a parent that was killed."""
  while os.getppid() == parent:
    time.sleep(1)
  os._exit(1)


if __name__ == '__main__':
  _main(int(sys.argv[1]))
