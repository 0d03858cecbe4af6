"""Checkpoints: with saved.py, which reads one, the only file that imports Orbax.

A checkpoint is a folder workdir/checkpoints/STEP with the items `state` (TrainState)
and, as JSON, `data` (where the Grain iterator stands), `config`, `vocabulary` (the
tokenizer or the names of the classes), `record` (of the data: data/record.py) and
`checksums` of all these. It fits any number of devices and processes. Saving is
asynchronous; a folder gets its final name only when it is complete, so a killed save leaves
nothing that looks like a checkpoint.

Whatever is read is compared with its checksum. Where a checkpoint is damaged, the newest
one that is not is taken instead, and the damage is said; a run that continues from there
renames the damaged folders to STEP.damaged.

Where a run starts from, first match wins:
  1. the newest checkpoint of its own workdir: everything, the run continues;
  2. --config.restore=WORKDIR: the newest parameters there; step, optimiser and data anew;
  3. scratch.
"""

import contextlib
import json
import math
import pathlib
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from elas_jax.common.errors import UserError
from elas_jax.common.places import place
from elas_jax.config.config import CheckpointConfig
from elas_jax.run import checksums
from elas_jax.run.saved import (
  Damaged,
  Saved,
  context,
  newest_whole,
  os_error,
  say,
  steps_in,
)
from elas_jax.run.state import TrainState

policies = ocp.training.preservation_policies


class Checkpoints:
  """The checkpoints of a workdir: the latest `keep_latest` and the best `keep_best`."""

  def __init__(self, workdir: str | pathlib.Path, config: CheckpointConfig):
    keep = [policies.LatestN(config.keep_latest)]
    if config.keep_best:
      best = policies.BestN(
        get_metric_fn=lambda metrics: metrics['eval/loss'],
        reverse=True,  # the last of the sorted order is kept
        n=config.keep_best,
        keep_checkpoints_without_metrics=False,
      )
      keep.append(best)
    self._directory = pathlib.Path(workdir).absolute() / 'checkpoints'
    _on_process_0(lambda: _check_writable(self._directory))
    _on_process_0(lambda: _set_aside_bad_metrics(self._directory))
    self._checkpointer = ocp.training.Checkpointer(
      self._directory,
      context=context(),
      preservation_policy=policies.AnyPreservationPolicy(keep),
      cleanup_tmp_directories=True,
    )

  @property
  def latest_step(self) -> int | None:
    """The newest complete checkpoint; None if there is none."""
    return max(steps_in(self._directory), default=None)

  def save(
    self,
    state: TrainState,
    data: Any,
    config: dict[str, Any],
    vocabulary: dict[str, Any],
    record: dict[str, Any] | None,
    eval_loss: float | None,
  ) -> None:
    """Starts to save this step; waits for the save before it, and raises its errors."""
    # Not the iterator itself: Grain would write a file for each process, which a run with
    # another number of them could not read.
    items = {'data': data.get_state(), 'config': config, 'vocabulary': vocabulary}
    if record is not None:  # None: of a run from before there were records
      items['record'] = record
    sums = {
      'items': {name: checksums.of_json(value) for name, value in items.items()},
      'arrays': checksums.of_arrays(state),
    }
    items['checksums'] = {'own': checksums.of_json(sums), 'of': sums}
    with _system_errors():
      self._checkpointer.save_checkpointables_async(
        int(state.step),
        {'state': state, **items},
        force=True,  # or it would be dropped while another save runs
        metrics=None if eval_loss is None else {'eval/loss': eval_loss},
      )

  def restore(self, abstract_state: TrainState, data: Any) -> TrainState:
    """The newest whole state, placed as `abstract_state` says; puts `data` where it was.

    Newer ones that are damaged are set aside, so that their steps can be saved again.
    """
    start = data.get_state()

    def load(saved: Saved) -> tuple[TrainState, Any]:
      saved.check_items()  # a run that goes on asks for them first, of this checkpoint
      position = saved.json('data')
      # Those from before there were checksums may hold anything.
      if not isinstance(position, dict) or position.keys() != start.keys():
        raise Damaged(f'data: {position!r} is no position')
      return saved.state(abstract_state), position

    (state, position), damaged = newest_whole(
      self._directory, steps_in(self._directory), load, str(self._directory.parent)
    )
    if damaged:
      _on_process_0(lambda: [_set_aside(self._directory / str(step)) for step in damaged])
      self._checkpointer.reload()
    data.set_state(position)
    return state

  def wait(self) -> None:
    """Returns when the running save is complete; raises its error."""
    with _system_errors():
      self._checkpointer.wait()

  def close(self) -> None:
    """Lets the running save end. Its error, if `wait` was not called, does not matter:
    another one is on its way."""
    with contextlib.suppress(OSError):
      self.wait()
    self._checkpointer.close()


@contextlib.contextmanager
def _system_errors() -> Iterator[None]:
  """Turns the ValueError by which TensorStore reports a full disk into an OSError."""
  try:
    yield
  except ValueError as error:
    system = os_error(error)
    if system is None:
      raise
    raise system from error


def _on_process_0(change: Callable[[], Any]) -> None:
  """Changes the folder on process 0; the others go on when it is done."""
  if not jax.process_index():
    change()
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices('checkpoints changed')


def _check_writable(directory: pathlib.Path) -> None:
  """Makes the folder; OSError if it cannot hold checkpoints.

  Orbax would say so at the first save, when what was computed until then is lost.
  """
  directory.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryFile(dir=directory):
    pass


def _set_aside(path: pathlib.Path) -> None:
  """Renames what is damaged to NAME.damaged, or NAME.damaged-2 and so on."""
  name, number = f'{path.name}.damaged', 1
  while path.with_name(name).exists():
    number += 1
    name = f'{path.name}.damaged-{number}'
  path.rename(path.with_name(name))
  say(f'{path} is kept as {name}')


def _set_aside_bad_metrics(directory: pathlib.Path) -> None:
  """The losses of checkpoints at which Orbax would stop; the checkpoints stay.

  Only which of them is the best depends on it.
  """
  for step in steps_in(directory):
    path = directory / str(step) / 'metrics/metrics'
    try:
      loss = json.loads(path.read_text())['eval/loss']
      good = isinstance(loss, float) and math.isfinite(loss)
    except (FileNotFoundError, NotADirectoryError):  # saved without a loss
      continue
    except (ValueError, KeyError, TypeError):  # no JSON, no UTF-8, or another object
      good = False
    if not good:
      say(f'{path} is damaged; the loss of this checkpoint is unknown')
      _set_aside(path)


def _directory(workdir: str | pathlib.Path, field: str) -> pathlib.Path:
  return place(field, workdir).absolute() / 'checkpoints'


def steps(workdir: str | pathlib.Path, field: str) -> list[int]:
  """The steps of a workdir's checkpoints, ascending; `field` names it in errors.

  Raises:
    UserError: there is none.
  """
  directory = _directory(workdir, field)
  found = steps_in(directory)
  if not found:
    raise UserError(f'{field}={str(workdir)!r}: no checkpoint under {directory}')
  return found


def load(
  workdir: str | pathlib.Path,
  step: int | None,
  field: str,
  read: Callable[[Saved], Any],
) -> Any:
  """What `read` takes from one checkpoint: that of `step`, or the newest whole one.

  Args:
    workdir: of the run that saved it.
    step: one of `steps(workdir)`, or None.
    field: what names `workdir` in errors.
    read: called with newer checkpoints first, until one is not damaged.
  """
  known = steps(workdir, field)
  if step is not None and step not in known:
    raise UserError(f'step={step}: {workdir} has checkpoints of steps {known}')
  directory = _directory(workdir, field)
  asked = known if step is None else [step]
  return newest_whole(directory, asked, read, f'{field}={str(workdir)!r}')[0]


def load_variables(
  workdir: str | pathlib.Path,
  abstract_variables: dict[str, Any],
  step: int | None,
  field: str,
) -> dict[str, Any]:
  """Only parameters and buffers of a checkpoint: ShapeDtypeStructs with shardings say
  which, of the model that will use them. The others are as of `load`."""

  def read(saved: Saved) -> dict[str, Any]:
    saved.check_items()
    return saved.variables(abstract_variables)

  return load(workdir, step, field, read)


def load_json(
  workdir: str | pathlib.Path, item: str, field: str, step: int | None = None
) -> dict[str, Any]:
  """A JSON item of a checkpoint; the other arguments as of `load`."""
  return load(workdir, step, field, lambda saved: saved.json(item))


def has_checkpoint(workdir: str | pathlib.Path) -> bool:
  """Whether there is a complete one."""
  return bool(steps_in(_directory(workdir, '--workdir')))
