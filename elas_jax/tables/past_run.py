"""The run of a workdir in the form of the record: what it was, and what came of it."""

import json
import pathlib
from typing import Any

from elas_jax.common.errors import UserError
from elas_jax.config.config import filled
from elas_jax.config.migrate import lifted
from elas_jax.run import diverged
from elas_jax.run.checkpoint import has_checkpoint
from elas_jax.run.continuation import load_past
from elas_jax.run.ended import CURVES, values, where
from elas_jax.run.metrics import read_metrics
from elas_jax.run.record import DIVERGED, FINISHED, Recorded, key

UNFINISHED = 'unfinished'  # what a recorded run never is


def run_of(workdir: pathlib.Path) -> Recorded:
  """The run of a workdir in the form of the record, with its whole curve.

  Raises:
    UserError: no run has written there, or one of its files is damaged.
  """
  path = workdir / 'config.json'
  try:
    tree = json.loads(path.read_bytes())
  except OSError as error:
    raise UserError(f'{path}: cannot be read: {error.strerror}; is it a workdir?') from None
  except ValueError as error:  # JSON or UTF-8
    raise UserError(f'{path}: is damaged: {error}') from None
  try:
    config = filled(lifted(tree))
  except UserError as error:
    raise UserError(f'{path}: {error}') from error
  about, lines = read_metrics(workdir)
  status, step = _status(workdir, lines, config.train.steps)
  points = {
    name: [[x['step'], x[name]] for x in lines if x.get(name) is not None]
    for name in CURVES
  }
  return Recorded(
    fingerprint=key(config),
    config=tree,
    status=status,
    step=step,
    values=values(config, lines),
    curve={name: of for name, of in points.items() if of},
    **where(about),
  )


def data_record(workdir: pathlib.Path) -> dict[str, Any] | None:
  """What its newest checkpoint says of the data; None where there is none to say it."""
  return load_past(workdir, 'RUN').record if has_checkpoint(workdir) else None


def _status(workdir: pathlib.Path, lines: list[dict], steps: int) -> tuple[str, int | None]:
  """Of a run that should have made `steps`, and the step that it came to."""
  if (step := diverged.step_of(workdir)) is not None:
    return DIVERGED, step
  for line in lines:
    if 'eval/loss' in line and line['eval/loss'] is None:
      return DIVERGED, line['step']
    if 'eval/loss' in line and line['step'] == steps:
      return FINISHED, None
  return UNFINISHED, max((line['step'] for line in lines), default=0)
