"""One checkpoint as it is read: what was saved, or an error that says what is damaged."""

import errno
import functools
import logging
import os
import pathlib
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from elas_jax.common.errors import UserError
from elas_jax.common.paths import path_name
from elas_jax.config.migrate import moved_arrays
from elas_jax.run import checksums
from elas_jax.run.state import TrainState
from elas_jax.run.stored_arrays import as_stored, as_today
from elas_jax.tasks.task import BESIDE

# What reading a broken file ends with: TensorStore's errors and those of JSON and UTF-8 are
# ValueErrors; the others come from metadata in which another name or kind of value stands.
BROKEN = (ValueError, LookupError, TypeError, AttributeError)
JSON_ITEMS = ('data', 'config', 'vocabulary', 'tokenizer', 'record', 'checksums')


def context() -> ocp.Context:
  """How Orbax reads and writes the items of a checkpoint."""
  registry = ocp.handlers.local_registry()
  for item in JSON_ITEMS:  # others are read as arrays
    registry.add(ocp.handlers.JsonHandler, checkpointable_name=item)
  context = ocp.Context()
  context.checkpointables.registry = registry
  context.pytree.loading.partial_load = True  # parameters without optimiser state
  return context


class Damaged(Exception):
  """Something in a checkpoint is not what was saved; the message says what."""


class Saved:
  """A checkpoint. What its methods return is what was saved; else they raise Damaged.

  Args:
    folder: workdir/checkpoints/STEP.
  """

  def __init__(self, folder: pathlib.Path):
    self.folder, self.step = folder, int(folder.name)
    _ignore_reads_left_behind()
    if not folder.is_dir():
      raise Damaged('is no folder')
    self._sums = self._checksums()

  @property
  def verified(self) -> bool:
    """False for checkpoints made before there were checksums."""
    return self._sums is not None

  def json(self, item: str) -> Any:
    """The item `config`, `data`, `vocabulary` or `record`."""
    value = self._load(item, None)
    if self.verified and checksums.of_json(value) != self._sums['items'].get(item):
      raise Damaged(f'{item}: the checksum differs')
    return value

  @property
  def vocabulary(self) -> str:
    """The name of that item, which older checkpoints call `tokenizer`."""
    return 'tokenizer' if self.has('tokenizer') else 'vocabulary'

  def check_items(self) -> None:
    """Raises Damaged if it does not say what config, tokenizer and data it is of."""
    for item in ('config', self.vocabulary, 'record'):
      if item != 'record' or self.has(item):
        self.json(item)

  def state(self, abstract_state: TrainState) -> TrainState:
    """All of it, placed as `abstract_state` says; UserError if of another model."""
    moved = moved_arrays(self.json('config'))
    stored = as_stored(abstract_state, moved)
    parts = {'params': stored.params, 'buffers': stored.buffers}
    kinds = self._check_same_model(parts)
    if moved:  # some of them had another dtype
      asked, stored = stored, _in_dtypes(kinds, stored)
      if rounded := _other_dtypes(asked, stored):
        say(f'{self.folder}: {rounded}, which an older version kept otherwise')
    return as_today(self._arrays(stored), abstract_state, moved)

  def variables(self, abstract_variables: dict[str, Any]) -> dict[str, Any]:
    """Only parameters and buffers, in the dtypes that are asked for."""
    moved = moved_arrays(self.json('config'))
    stored = as_stored(abstract_variables, moved)
    kinds = self._check_same_model(stored)
    # Compared with their checksums as they were saved, and only then converted.
    as_saved = _in_dtypes(kinds, stored)
    # An empty part is not asked for: there may be something beside what is no part of it.
    loaded = self._arrays({part: x for part, x in as_saved.items() if x})
    loaded = as_today(dict.fromkeys(as_saved, {}) | loaded, abstract_variables, moved)
    return jax.tree.map(lambda x, like: x.astype(like.dtype), loaded, abstract_variables)

  def _arrays(self, abstract: Any) -> Any:
    loaded = self._load('state', abstract)
    for path, leaf in jax.tree_util.tree_leaves_with_path(loaded):
      if not isinstance(leaf, jax.Array):  # its metadata say that it has no values
        raise Damaged(f'state: {path_name(path)!r} is not there')
    if self.verified:
      bad = checksums.differing(loaded, self._sums['arrays'])
      if bad:
        more = f' and {len(bad) - 1} more' if bad[1:] else ''
        raise Damaged(f'state: the checksum of {bad[0]!r}{more} differs')
    return loaded

  def _load(self, item: str, abstract: Any) -> Any:
    cause = None
    try:
      with context():
        return ocp.load_checkpointables(self.folder, {item: abstract})[item]
    except KeyError as error:  # Orbax puts everything that ends a load into its own
      cause = error.__cause__
    if cause is None:
      raise Damaged(f'{item}: missing')
    while cause.__cause__ is not None:
      cause = cause.__cause__
    system = os_error(cause)
    if system is not None and not _is_lost(system):
      raise system
    if system is None and not isinstance(cause, BROKEN):
      raise cause
    if jax.process_count() > 1:
      # The other processes wait for this one inside of Orbax and would not follow it.
      raise UserError(
        f'the checkpoint {self.folder} is damaged: {_described(item, cause)}; move it '
        'away to continue from the one before'
      )
    raise Damaged(_described(item, cause))

  def _checksums(self) -> dict[str, Any] | None:
    """{'items': ..., 'arrays': ...}; None if it was saved without them."""
    if not self.has('checksums'):
      return None
    found = self._load('checksums', None)
    sums = found.get('of') if isinstance(found, dict) else None
    if not sums or found.get('own') != checksums.of_json(sums):
      raise Damaged('checksums: their own checksum differs')
    return sums

  def has(self, item: str) -> bool:
    """Whether it was saved; older checkpoints lack some."""
    if (self.folder / item).exists():
      return True
    try:
      return f'"{item}"'.encode() in (self.folder / '_CHECKPOINT_METADATA').read_bytes()
    except FileNotFoundError:
      return False

  def _check_same_model(self, abstract_variables: Any) -> dict[str, Any]:
    """Names the first parameter or buffer in which the checkpoint and this model differ.

    What lies beside the network's own is no part of the model: it counts where it is asked
    for.

    Returns the dtypes that they were saved in, by path; none if that is not readable:
    loading them says why.
    """
    with context():
      saved = ocp.checkpointables_metadata(self.folder).metadata.get('state')
    if saved is None:
      return {}
    arrays: Callable = lambda tree: {
      path_name(path): leaf
      for path, leaf in jax.tree_util.tree_leaves_with_path(
        tree, is_leaf=lambda x: hasattr(x, 'shape')
      )
    }
    parts = ('params', 'buffers')
    stored = {part: dict(saved.get(part) or {}) for part in parts}
    theirs = arrays(stored)
    ours = arrays({part: abstract_variables[part] for part in parts})
    describe = lambda x: 'absent' if x is None else f'of shape {tuple(x.shape)}'
    beside = tuple(f'buffers/{name}/' for name in BESIDE)
    there_alone = (name for name in theirs if not name.startswith(beside))
    for name in sorted({*there_alone, *ours}):
      there, here = describe(theirs.get(name)), describe(ours.get(name))
      if there != here:
        raise UserError(
          f'the checkpoint of step {self.step} in {self.folder.parent} is of another '
          f'model: parameter {name.partition("/")[2]!r} is {there} there and {here} in '
          'this config'
        )
    return {name: array.dtype for name, array in theirs.items()}


def _in_dtypes(kinds: dict[str, Any], abstract: Any) -> Any:
  """The same arrays in these dtypes, by path."""
  return jax.tree_util.tree_map_with_path(
    lambda path, x: x.update(dtype=kinds.get(path_name(path), x.dtype)), abstract
  )


def _other_dtypes(asked: Any, saved: Any) -> str:
  """Which arrays are asked for in another dtype than they were saved in; '' if none."""
  leaves = jax.tree_util.tree_leaves_with_path
  pairs = zip(leaves(asked), jax.tree.leaves(saved))
  found = [(path_name(p), a.dtype, b.dtype) for (p, a), b in pairs if a.dtype != b.dtype]
  if not found:
    return ''
  name, now, before = found[0]
  return f'{len(found)} arrays go from {before} to {now}, as {name}'


def steps_in(directory: pathlib.Path) -> list[int]:
  """The steps of the complete checkpoints in a folder, ascending."""
  if not os.path.isdir(directory):  # pathlib's raises where the path cannot be
    return []
  # Not '012' or digits of other scripts, which are numbers and no names of checkpoints.
  names = [path.name for path in directory.iterdir() if path.name.isdecimal()]
  return sorted(int(name) for name in names if name == str(int(name)))


def newest_whole(
  directory: pathlib.Path, steps: Sequence[int], load: Callable[[Saved], Any], field: str
) -> tuple[Any, list[int]]:
  """`load` of the newest of these checkpoints that is not damaged.

  Says which are damaged and why.

  Returns:
    What `load` returned, and the steps that were damaged, newest first.

  Raises:
    UserError: all are damaged; `field` says what named them.
  """
  damaged = {}
  for step in sorted(steps, reverse=True):
    try:
      saved = Saved(directory / str(step))
      loaded = load(saved)
    except Damaged as error:
      damaged[step] = str(error)
      continue
    except OSError as error:
      raise UserError(f'{field}: step {step} in {directory}: {error}') from error
    for bad, why in damaged.items():
      say(f'step {bad} in {directory} is damaged ({why}); taking step {step}')
    if not saved.verified:
      say(f'{saved.folder} was saved without checksums: not verified')
    return loaded, list(damaged)
  whys = '; '.join(f'step {step} is damaged ({why})' for step, why in damaged.items())
  if others := [step for step in steps_in(directory) if step not in damaged]:
    raise UserError(f'{field}: {directory}: {whys}; others there are {others}')
  raise UserError(f'{field}: no checkpoint in {directory} can be read: {whys}')


def say(text: str) -> None:
  """A note beside what a command prints; on process 0 only."""
  if not jax.process_index():
    print(text, file=sys.stderr, flush=True)


def os_error(error: Exception) -> OSError | None:
  """The error of the operating system that TensorStore reports as a ValueError."""
  if isinstance(error, OSError):
    return error
  code = re.search(r"os_error_code='(\d+)'", str(error))
  return OSError(int(code[1]), os.strerror(int(code[1]))) if code else None


def _is_lost(error: OSError) -> bool:
  """Whether this says that a file is lost; a missing permission, or too many open files,
  say nothing about the file."""
  kinds = FileNotFoundError, NotADirectoryError, IsADirectoryError
  return isinstance(error, kinds) or error.errno in (errno.EIO, errno.EILSEQ)


def _described(item: str, cause: Exception) -> str:
  """One line of an error: TensorStore's say first what was read, then what is wrong."""
  text = ' '.join(re.split(r" \[\w[\w ]*='", str(cause))[0].split())
  if len(text) > 240:
    text = f'{text[:80]} ... {text[-150:]}'
  return f'{item}: {type(cause).__name__}: {text}'


@functools.cache
def _ignore_reads_left_behind() -> None:
  """Silences the reads that a load started beside the one that ended it.

  They end later, find nobody who waits, and say so from threads and destructors.
  """
  before = sys.unraisablehook
  theirs = 'Event loop is closed|_read_array_index_and_device_put|was never awaited'

  def hook(unraisable: Any) -> None:
    if not re.search(theirs, f'{unraisable.exc_value} {unraisable.object!r}'):
      before(unraisable)

  sys.unraisablehook = hook
  logging.getLogger('asyncio').addFilter(
    lambda record: 'exception was never retrieved' not in record.getMessage()
  )
  warnings.filterwarnings('ignore', 'coroutine .* was never awaited', RuntimeWarning)
