"""Runs that end with a loss, a gradient or parameters that are not finite."""

import json
import pathlib

from elas_jax.common.errors import UserError
from elas_jax.common.places import write_text

MARK = 'diverged.json'  # in a workdir, until the run goes on


class Diverged(UserError):
  """Training has ended so, at `step`."""

  def __init__(self, message: str, step: int):
    super().__init__(message)
    self.step = step


def mark(workdir: pathlib.Path, step: int, what: str) -> None:
  """For readers of the workdir."""
  text = json.dumps({'step': step, 'message': what}, indent=2)
  write_text(workdir / MARK, text + '\n')


def forget(workdir: pathlib.Path) -> None:
  """The run goes on from its last checkpoint."""
  (workdir / MARK).unlink(missing_ok=True)


def step_of(workdir: pathlib.Path) -> int | None:
  """Where the run of a workdir diverged; None if it has not.

  Raises:
    UserError: the mark is damaged.
  """
  try:
    return json.loads((workdir / MARK).read_bytes())['step']
  except FileNotFoundError:
    return None
  except (ValueError, KeyError, TypeError) as error:
    raise UserError(f'{workdir / MARK}: is damaged: {error!r}') from None
