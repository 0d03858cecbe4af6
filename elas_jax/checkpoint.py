"""Checkpoints: the only file that imports Orbax.

A checkpoint is a folder workdir/checkpoints/STEP with four items: `state` (TrainState)
and, as JSON, `data` (where the Grain iterator stands), `config` and `tokenizer`. It fits
any number of devices and processes. Saving is asynchronous; a folder gets its final name
only when it is complete, so a killed save leaves nothing that looks like a checkpoint.

Where a run starts from, first match wins:
  1. the newest checkpoint of its own workdir: everything, the run continues;
  2. --config.restore=WORKDIR: the newest parameters there; step, optimiser and data anew;
  3. scratch.
"""

import contextlib
import os
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from elas_jax.config import CheckpointConfig
from elas_jax.errors import UserError
from elas_jax.optim.groups import path_name
from elas_jax.places import place
from elas_jax.state import TrainState

policies = ocp.training.preservation_policies


def _context() -> ocp.Context:
  registry = ocp.handlers.local_registry()
  for item in ('data', 'config', 'tokenizer'):  # else their values are stored as arrays
    registry.add(ocp.handlers.JsonHandler, checkpointable_name=item)
  context = ocp.Context()
  context.checkpointables.registry = registry
  context.pytree.loading.partial_load = True  # parameters without optimiser state
  return context


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
    self._checkpointer = ocp.training.Checkpointer(
      pathlib.Path(workdir).absolute() / 'checkpoints',
      context=_context(),
      preservation_policy=policies.AnyPreservationPolicy(keep),
      cleanup_tmp_directories=True,
    )

  @property
  def latest_step(self) -> int | None:
    """The newest complete checkpoint; None if there is none."""
    latest = self._checkpointer.latest
    return None if latest is None else latest.step

  def save(
    self,
    state: TrainState,
    data: Any,
    config: dict[str, Any],
    tokenizer: dict[str, Any],
    eval_loss: float | None,
  ) -> None:
    """Starts to save this step; waits for the save before it, and raises its errors."""
    with _system_errors():
      self._checkpointer.save_checkpointables_async(
        int(state.step),
        {
          'state': state,
          # Not the iterator itself: Grain would write a file for each process, which a
          # run with another number of them could not read.
          'data': data.get_state(),
          'config': config,
          'tokenizer': tokenizer,
        },
        force=True,  # or it would be dropped while another save runs
        metrics=None if eval_loss is None else {'eval/loss': eval_loss},
      )

  def restore(self, abstract_state: TrainState, data: Any) -> TrainState:
    """The newest state, placed as `abstract_state` says; puts `data` where it was."""
    step = self.latest_step
    _check_same_model(self._checkpointer, step, abstract_state.variables)
    loaded = self._checkpointer.load_checkpointables(
      step, {'state': abstract_state, 'data': None}
    )
    data.set_state(loaded['data'])
    return loaded['state']

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
    code = re.search(r"os_error_code='(\d+)'", str(error))
    if code is None:
      raise
    number = int(code[1])
    raise OSError(number, os.strerror(number)) from error


@contextlib.contextmanager
def _opened(workdir: str | pathlib.Path, field: str) -> Iterator[Any]:
  """A reader of a workdir that must have a checkpoint."""
  directory = place(field, workdir).absolute() / 'checkpoints'
  reader = None
  if os.path.isdir(directory):  # pathlib's raises where the path cannot be
    reader = ocp.training.Checkpointer(directory, context=_context())
  if reader is None or reader.latest is None:
    raise UserError(f'{field}={str(workdir)!r}: no checkpoint under {directory}')
  with reader:
    yield reader


def steps(workdir: str | pathlib.Path, field: str) -> list[int]:
  """The steps of a workdir's checkpoints, ascending; `field` names it in errors."""
  with _opened(workdir, field) as reader:
    return [checkpoint.step for checkpoint in reader.checkpoints]


def load_variables(
  workdir: str | pathlib.Path,
  abstract_variables: dict[str, Any],
  step: int | None,
  field: str,
) -> dict[str, Any]:
  """Only parameters and buffers of a checkpoint (the newest, or that of `step`).

  Args:
    workdir: of the run that saved it.
    abstract_variables: ShapeDtypeStructs with shardings, of the model that will use them.
    step: one of `steps(workdir)`, or None for the newest.
    field: what names `workdir` in errors.
  """
  with _opened(workdir, field) as reader:
    known = [checkpoint.step for checkpoint in reader.checkpoints]
    step = known[-1] if step is None else step
    if step not in known:
      raise UserError(f'step={step}: {workdir} has checkpoints of steps {known}')
    _check_same_model(reader, step, abstract_variables)
    return reader.load_checkpointables(step, {'state': abstract_variables})['state']


def load_json(workdir: str | pathlib.Path, item: str, field: str) -> dict[str, Any]:
  """The item `config` or `tokenizer` of the newest checkpoint."""
  with _opened(workdir, field) as reader:
    return reader.load_checkpointables(None, {item: None})[item]


def _check_same_model(reader: Any, step: int, abstract_variables: Any) -> None:
  """Names the first parameter or buffer in which the checkpoint and this model differ."""
  saved = reader.checkpointables_metadata(step).metadata['state']
  shapes: Callable = lambda tree: {
    path_name(path): tuple(leaf.shape)
    for path, leaf in jax.tree_util.tree_leaves_with_path(
      tree, is_leaf=lambda x: hasattr(x, 'shape')
    )
  }
  theirs, ours = {}, {}
  for part in ('params', 'buffers'):
    theirs |= shapes(saved.get(part) or {})
    ours |= shapes(abstract_variables[part])
  for name in sorted(set(theirs) | set(ours)):
    if theirs.get(name) != ours.get(name):
      describe = lambda shape: 'absent' if shape is None else f'of shape {shape}'
      raise UserError(
        f'the checkpoint of step {step} in {reader.directory} is of another model: '
        f'parameter {name!r} is {describe(theirs.get(name))} there and '
        f'{describe(ours.get(name))} in this config'
      )
