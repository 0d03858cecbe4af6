"""A command that is told to stop, from its first moment on: Control-C and SIGTERM."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator

SIGNALLED = 128  # and the number of the signal: what a shell reports of a command
INTERRUPTED = SIGNALLED + signal.SIGINT
CONSOLE_COMMANDS = 'elas-'


def quiet_start() -> None:
  """If this interpreter runs a command: Control-C ends it in one line while it imports.

  Imports take seconds. A KeyboardInterrupt inside of them shows a traceback through other
  people's modules, some of which catch it; and there is nothing to clean up yet.
  `end_of_start` is where that changes.
  """
  program = os.path.basename(sys.argv[0]) if sys.argv else ''
  # '-m' stands there while `python -m elas_jax.NAME` looks for the module.
  if program == '-m' or program.startswith(CONSOLE_COMMANDS):
    _replace(signal.SIGINT, signal.default_int_handler, _exit_at_once)


def end_of_start() -> None:
  """Control-C raises KeyboardInterrupt again."""
  _replace(signal.SIGINT, _exit_at_once, signal.default_int_handler)


@contextlib.contextmanager
def cleaned_up() -> Iterator[None]:
  """SIGTERM and SIGHUP leave this block as SystemExit, so that its temporary files go.

  They would end the process at once. Signals that whoever started the command has it
  ignore (nohup) stay ignored.
  """
  received = []

  def leave(number, frame):
    del frame
    received.append(number)
    sys.exit(SIGNALLED + number)

  ours = [
    number
    for number in (signal.SIGTERM, signal.SIGHUP)
    if _replace(number, signal.SIG_DFL, leave)
  ]
  try:
    yield
  finally:
    for number in ours:
      _replace(number, leave, signal.SIG_DFL)
  if received:  # in a callback of the garbage collector, which drops exceptions
    sys.exit(SIGNALLED + received[0])


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
