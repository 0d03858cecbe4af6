"""Progress on stderr: a bar on a terminal, a line every ten seconds elsewhere."""

import sys
import time

SECONDS_BETWEEN_LINES = 10.0


class Progress:
  """Shows how many of `total` bytes of text are done; a context manager.

  Args:
    label: what is being done.
    total: bytes expected; an estimate is fine, 0 means unknown.
  """

  def __init__(self, label: str, total: int):
    self._label = label
    self._total = total
    self._done = 0
    self._bar = None
    self._next_line = time.monotonic() + SECONDS_BETWEEN_LINES

  def __enter__(self) -> 'Progress':
    if sys.stderr.isatty():
      # rich is imported only where there is a terminal to draw on.
      from rich import console, progress

      self._bar = progress.Progress(
        progress.TextColumn('{task.description}'),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
        console=console.Console(stderr=True),
      )
      self._bar.add_task(self._label, total=self._total or None)
      self._bar.start()
    return self

  def __exit__(self, *unused_exception) -> None:
    if self._bar:
      self._bar.stop()

  def set(self, done: int) -> None:
    """Shows that `done` bytes are finished."""
    self._done = done
    if self._bar:
      self._bar.update(self._bar.task_ids[0], completed=done)
    elif time.monotonic() >= self._next_line:
      self._next_line = time.monotonic() + SECONDS_BETWEEN_LINES
      of_total = f' of {self._total / 1e6:.0f}' if self._total else ''
      print(f'{self._label}: {done / 1e6:.0f}{of_total} MB', file=sys.stderr, flush=True)

  def advance(self, more: int) -> None:
    """Shows that `more` further bytes are finished."""
    self.set(self._done + more)
