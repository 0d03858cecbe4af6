"""A run's folder: config.json, metrics.jsonl, checkpoints/, plots/, and its lock."""

import contextlib
import dataclasses
import fcntl
import functools
import json
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import jax
from jax.sharding import Mesh

from elas_jax.common.errors import UserError
from elas_jax.common.places import write_text
from elas_jax.config.checks import check
from elas_jax.config.config import Config, MeshConfig, at_step, to_json
from elas_jax.data.record import SPLITS
from elas_jax.data.tokenizers import Tokenizer
from elas_jax.run import checkpoint
from elas_jax.run.continuation import Past, other_tokenizer, read_past
from elas_jax.run.kernel_checks import lacking_kernels, with_kernels
from elas_jax.run.sharding import make_mesh, state_shardings
from elas_jax.run.state import abstract_of_run
from elas_jax.tasks import task_of


@contextlib.contextmanager
def locked(workdir: pathlib.Path) -> Iterator[None]:
  """Makes the folder and holds it for this run; the system frees it at a kill.

  Process 0 holds it for all processes of the run.
  """
  if jax.process_index():
    yield
    return
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    lock = (workdir / '.lock').open('w')
  except OSError as error:
    raise UserError(f'--workdir={workdir}: cannot be written: {error.strerror}') from None
  with lock:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise UserError(
        f'--workdir={workdir}: another process is training there; wait, or give another'
      ) from None
    except OSError:
      pass  # a file system without locks
    yield


def write_config(workdir: pathlib.Path, config: Config) -> None:
  """Writes config.json, for readers: a continued run compares with its checkpoint."""
  if jax.process_index():
    return
  path = workdir / 'config.json'
  try:
    json.loads(path.read_text())
  except FileNotFoundError:
    pass
  except ValueError as error:  # JSON or UTF-8
    print(f'{path} is damaged ({error}): written anew', file=sys.stderr)
  write_text(path, to_json(config))


@dataclasses.dataclass(frozen=True)
class Run:
  """A trained model, as evaluation and generation need it."""

  config: Config
  step: int
  variables: Any
  mesh: Mesh
  past: Past

  @property
  def tokenizer(self) -> Tokenizer | None:
    """Of a language model."""
    return self.past.tokenizer

  def prepared(self, splits: tuple[str, ...] = SPLITS, accept_changed: bool = False) -> Any:
    """The run's data, prepared anew if the cache has gone, with the run's own tokenizer.

    Raises:
      UserError: these splits are not those of the run, and that is not accepted.
    """
    data = self.data_now()
    self.check_data(data, splits, accept_changed)
    return data

  def data_now(self) -> Any:
    """What its config names, prepared; not compared with what the run had."""
    own = self.tokenizer
    if own and (other := other_tokenizer(self.config, own)):
      print(f'{other}: the copy in the checkpoint is used', file=sys.stderr)
    return task_of(self.config).prepare(self.config, own)

  def check_data(self, data: Any, splits: tuple[str, ...], accept_changed: bool) -> None:
    """Raises UserError if these are not those of the run, and that is not accepted."""
    if unknown := self.past.unknown():
      print(unknown, file=sys.stderr)
    if (change := self.past.change(data, splits)) and not accept_changed:
      raise UserError(
        f'--workdir={self.past.workdir}: the data are not those of step {self.step}: '
        f'{change}; put them back, or give --accept_changed'
      )


def check_text(run: Run, workdir: str | pathlib.Path) -> None:
  """Refuses a run that is not of text, for commands that let it say something."""
  if run.tokenizer is None:
    raise UserError(
      f'--workdir={workdir}: its task is {run.config.task!r}; must be the folder of a '
      "'language' or a 'preference' run"
    )


def open_run(
  workdir: str | pathlib.Path, step: int | None, overrides: dict[str, Any]
) -> Run:
  """The run in `workdir` with the parameters of `step` (None: the newest whole ones).

  `overrides` replaces config values ('eval.units': 1000); those that are None do not.
  """
  read = functools.partial(_run, workdir, overrides)
  return checkpoint.load(workdir, step, '--workdir', read)


def _run(
  workdir: str | pathlib.Path, overrides: dict[str, Any], saved: checkpoint.Saved
) -> Run:
  past = read_past(workdir, saved)
  config = _for_reading(past.parsed, overrides)
  check(config)
  if lacking := lacking_kernels(config):
    print(f"{lacking}; here 'auto' is taken", file=sys.stderr)
    config = with_kernels(config, 'auto')
  mesh = make_mesh(config)
  shapes = abstract_of_run(config)
  placed = jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
    shapes,
    state_shardings(config, mesh, shapes),
  )
  variables = saved.variables(placed)
  return Run(at_step(config, saved.step), saved.step, variables, mesh, past)


def _for_reading(config: Config, overrides: dict[str, Any]) -> Config:
  """The config of a run that is not trained here, with these values in it."""
  # This machine may have other devices than the one that trained.
  config = dataclasses.replace(config, mesh=MeshConfig())
  for name, value in overrides.items():
    if value is not None:
      section, field = name.split('.')
      changed = dataclasses.replace(getattr(config, section), **{field: value})
      config = dataclasses.replace(config, **{section: changed})
  # Nothing is trained here, so the training batch must not restrict the devices, nor the
  # sample at the end of training its length.
  batch = config.train.accumulation * jax.device_count()
  return dataclasses.replace(
    config,
    data=dataclasses.replace(config.data, batch_size=batch),
    eval=dataclasses.replace(config.eval, sample_tokens=0),
  )
