"""Live view: how runs are doing, side by side in a terminal.

  python -m elas_jax.watch --workdir runs/default runs/elas
  python -m elas_jax.watch --workdir=runs/default --once > now.txt

reads config.json and metrics.jsonl of runs in other processes, or on other machines with
the same file system; it takes no accelerator and writes nothing. It ends with the last run,
or by Control-C. Where the output is no terminal, it prints once a change.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.live import Live

from elas_jax.common.errors import UserError
from elas_jax.common.interruption import cleaned_up
from elas_jax.config.cli import Parser, integer, run_command
from elas_jax.run.follow import Followed
from elas_jax.run.panels import picture


def main(arguments: list[str] | None = None) -> None:
  options = _parser().parse_args(arguments)
  for workdir in options.workdir:
    if not workdir.is_dir():
      what = 'not a folder' if workdir.exists() else 'no such folder'
      raise UserError(f'--workdir={workdir}: {what}; must be the folder of a run')
  runs = [Followed(workdir) for workdir in options.workdir]
  # Also where the environment asks for colours: control characters belong on terminals.
  plain = {} if sys.stdout.isatty() else {'force_terminal': False, 'color_system': None}
  console = Console(**plain)
  steerable = console.is_terminal and not console.is_dumb_terminal
  see = _once if options.once else _live if steerable else _printed
  try:
    with cleaned_up():
      see(runs, console, options)
  except KeyboardInterrupt:
    pass  # how a view is left


def _parser() -> Parser:
  parser = Parser(
    prog='python -m elas_jax.watch', description='Show how runs are doing, as they go.'
  )
  parser.add_place(
    '--workdir',
    required=True,
    nargs='+',
    action='extend',
    metavar='DIR',
    help='folders of runs, such as --workdir runs/*; may be given several times',
  )
  parser.add_argument(
    '--every',
    type=integer(1),
    default=2,
    metavar='SECONDS',
    help='between two looks; default: 2',
  )
  parser.add_argument(
    '--stalled_after',
    type=integer(1),
    default=300,
    metavar='SECONDS',
    help='without a new line, if ten times what one takes is not longer; default: 300',
  )
  parser.add_argument('--once', action='store_true', help='show them as they are, and end')
  return parser


def _once(runs: Sequence[Followed], console: Console, options: Any) -> None:
  _poll(runs)
  console.print(picture(runs, console, time.time(), options.stalled_after))
  for run in runs:
    if run.damage:
      raise UserError(f'{run.workdir}: {run.damage}')


def _printed(runs: Sequence[Followed], console: Console, options: Any) -> None:
  """A picture for each change, as for a file or a pipe."""
  shown = None
  for now in _looks(runs, options):
    found = [(run.changes, run.state(now, options.stalled_after)) for run in runs]
    if found != shown:
      shown = found
      console.print(picture(runs, console, now, options.stalled_after))


def _live(runs: Sequence[Followed], console: Console, options: Any) -> None:
  """On a screen of its own; the last picture stays on the terminal."""
  try:
    with Live(console=console, screen=True, auto_refresh=False) as live:
      for now in _looks(runs, options):
        live.update(
          picture(runs, console, now, options.stalled_after, console.height), refresh=True
        )
  finally:
    console.print(picture(runs, console, time.time(), options.stalled_after))


def _looks(runs: Sequence[Followed], options: Any) -> Iterator[float]:
  """The time of each look, until all runs are finished."""
  while True:
    _poll(runs)
    now = time.time()
    yield now
    if all(run.state(now, options.stalled_after) == 'finished' for run in runs):
      return
    time.sleep(options.every)


def _poll(runs: Sequence[Followed]) -> None:
  for run in runs:
    run.poll()


if __name__ == '__main__':
  run_command(main)
