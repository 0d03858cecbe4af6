"""A command that is told to stop, from its first moment on: Control-C and SIGTERM."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator

INTERRUPTED = 130  # what a shell reports of a command that Control-C ended
CONSOLE_COMMANDS = 'elas-'


def quiet_start() -> None:
  """If this interpreter runs a command: Control-C ends it in one line while it imports.

  Imports take seconds. A KeyboardInterrupt inside of them shows a traceback through other
  people's modules, some of which catch it; and there is nothing to clean up yet.
  `stoppable` takes over from here.
  """
  program = os.path.basename(sys.argv[0]) if sys.argv else ''
  # '-m' stands there while `python -m elas_jax.NAME` looks for the module.
  if program == '-m' or program.startswith(CONSOLE_COMMANDS):
    _replace(signal.SIGINT, signal.default_int_handler, _exit_at_once)


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
  """Control-C raises KeyboardInterrupt; SIGTERM and SIGHUP raise SystemExit.

  So what a command has begun is cleaned up, and its temporary files go with it. Signals
  that whoever started the command has it ignore (nohup) stay ignored.
  """
  _replace(signal.SIGINT, _exit_at_once, signal.default_int_handler)
  ours = [
    number
    for number in (signal.SIGTERM, signal.SIGHUP)
    if _replace(number, signal.SIG_DFL, _raise_exit)
  ]
  try:
    yield
  finally:
    for number in ours:
      _replace(number, _raise_exit, signal.SIG_DFL)


def _replace(number: int, old, new) -> bool:
  """Puts the handler `new` where `old` is; only the main thread may."""
  if threading.current_thread() is not threading.main_thread():
    return False
  if signal.getsignal(number) is not old:
    return False
  signal.signal(number, new)
  return True


def _exit_at_once(number, frame) -> None:
  del number, frame
  os.write(2, b'error: interrupted\n')
  os._exit(INTERRUPTED)


def _raise_exit(number, frame) -> None:
  del frame
  sys.exit(128 + number)  # as a shell reports it
