"""A run's folder: config.json, metrics.jsonl, checkpoints/, plots/, and its lock."""

import contextlib
import dataclasses
import fcntl
import functools
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
from jax.sharding import Mesh

from elas_jax import checkpoint
from elas_jax.config import Config, at_step, parse, to_json
from elas_jax.data.tokenizers import Tokenizer, parse_tokenizer
from elas_jax.errors import UserError
from elas_jax.sharding import make_mesh, state_shardings
from elas_jax.state import abstract_variables
from elas_jax.tasks import task_of

# What may change when a run is continued: nothing that the numbers so far depend on,
# except train.steps, which lengthens the schedule.
MAY_CHANGE = (
  'train.steps',
  'train.log_every',
  'train.tensorboard',
  'train.compilation_cache',
)
# These follow from train.steps by default.
PHASES = tuple(
  f'optimizer.{name}'
  for name in (
    'warmup_steps',
    'decay_steps',
    'constant_steps',
    'exact_every',
    'projection_every',
    'merge_every',
    'restart_every',
  )
) + ('model.two_four_dense_steps',)
MAY_CHANGE_SECTIONS = ('mesh', 'checkpoint', 'eval', 'profile_steps', 'restore')
MACHINE_FIELDS = (
  'data.cache_dir',
  'data.processes',
  'data.read_threads',
  'data.prefetch',
)


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


def write_config(workdir: pathlib.Path, config: Config, continues: bool) -> None:
  """Writes config.json; a run that `continues` must have the config it was started with."""
  if jax.process_index():
    return
  path = workdir / 'config.json'
  if continues and path.exists():
    _check_same(path, read_config(path), json.loads(to_json(config)))
  write_text(path, to_json(config))


def read_config(path: pathlib.Path) -> dict[str, Any]:
  """The tree in a config.json.

  Raises:
    UserError: the file is damaged.
  """
  try:
    tree = json.loads(path.read_text())
    if not isinstance(tree, dict):
      raise ValueError('no object')
  except ValueError as error:  # JSON, UTF-8, or the line above
    raise UserError(
      f'{path} is damaged ({error}); delete it, it is written anew from --config'
    ) from error
  return tree


def write_text(path: pathlib.Path, text: str) -> None:
  """Writes a whole file or, if killed, nothing."""
  temporary = path.with_name(path.name + '.tmp')
  with temporary.open('w') as file:
    file.write(text)
    file.flush()
    os.fsync(file.fileno())
  os.replace(temporary, path)


def _check_same(path: pathlib.Path, old: dict[str, Any], new: dict[str, Any]) -> None:
  flat_old, flat_new = _flat(old), _flat(new)
  free_names = MAY_CHANGE + MACHINE_FIELDS
  if flat_old.get('train.steps') != flat_new['train.steps']:
    free_names += PHASES
  for name in flat_new:
    free = name in free_names or name.split('.')[0] in MAY_CHANGE_SECTIONS
    if not free and flat_old.get(name) != flat_new[name]:
      raise UserError(
        f'{name}={flat_new[name]!r}: the run in {path.parent} was started with '
        f'{flat_old.get(name)!r}; give that, or another --workdir'
      )


def _flat(tree: dict[str, Any], prefix: str = '') -> dict[str, Any]:
  flat = {}
  for name, value in tree.items():
    if isinstance(value, dict):
      flat |= _flat(value, f'{prefix}{name}.')
    else:
      flat[prefix + name] = value
  return flat


@dataclasses.dataclass(frozen=True)
class Run:
  """A trained model, as evaluation and generation need it."""

  config: Config
  step: int
  variables: Any
  mesh: Mesh
  tokenizer: Tokenizer | None  # of a language model

  def prepared(self) -> Any:
    """The run's data, prepared anew if the cache has gone."""
    return task_of(self.config).prepare(self.config)


def open_run(
  workdir: str | pathlib.Path, step: int | None, overrides: dict[str, Any]
) -> Run:
  """The run in `workdir` with the parameters of `step` (None: the newest whole ones).

  `overrides` replaces config values ('eval.tokens': 1000); those that are None do not.
  """
  read = functools.partial(_run, workdir, overrides)
  return checkpoint.load(workdir, step, '--workdir', read)


def _run(
  workdir: str | pathlib.Path, overrides: dict[str, Any], saved: checkpoint.Saved
) -> Run:
  config = saved.json('config')
  # This machine may have other devices than the one that trained.
  config['mesh'] = {'data': -1, 'fsdp': 1, 'tensor': 1}
  for name, value in overrides.items():
    if value is not None:
      section, field = name.split('.')
      config[section][field] = value
  # Nothing is trained here, so the training batch must not restrict the devices, nor the
  # sample at the end of training its length.
  config['data']['batch_size'] = config['train']['accumulation'] * jax.device_count()
  config['eval']['sample_tokens'] = 0
  config = parse(config)
  mesh = make_mesh(config)
  shapes = abstract_variables(config)
  placed = jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
    shapes,
    state_shardings(mesh, shapes),
  )
  variables = saved.variables(placed)
  tokenizer = None
  if config.task == 'language':
    content = saved.json('tokenizer')
    tokenizer = parse_tokenizer(json.dumps(content), str(workdir))
  return Run(at_step(config, saved.step), saved.step, variables, mesh, tokenizer)
