"""A run that is converted: what a converter is given, what changed, the new workdir."""

import contextlib
import functools
import json
import pathlib
import shlex
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from elas_jax.common.errors import UserError
from elas_jax.common.paths import path_name
from elas_jax.common.places import new_folder, write_text
from elas_jax.config import schema
from elas_jax.config.checks import check
from elas_jax.config.config import Config, after, at_step, to_json
from elas_jax.data.record import SPLITS
from elas_jax.models import layout
from elas_jax.run.checkpoint import Checkpoints, load_json
from elas_jax.run.kernel_checks import lacking_kernels, with_kernels
from elas_jax.run.state import abstract_variables, init_variables, state_from
from elas_jax.run.workdir import Run
from elas_jax.systems.converters import CONVERTERS
from elas_jax.systems.converters.common import Given, span
from elas_jax.tasks import task_of
from elas_jax.tasks.task import of_network

UNITS = 2048  # tokens or examples on which outputs are compared, and of a pass, about
MADE = 'conversion.json'  # in a workdir: what was converted, and how


def linear_maps(model: Any) -> tuple[str, ...]:
  """The paths of the modules of kind model.linear."""
  owners = layout.owners(model).items()
  return tuple(path for path, (owner, _) in owners if owner == model.linear)


class Source:
  """The run that is converted, and its data, prepared when they are asked for.

  Args:
    run: opened at the checkpoint that is converted.
    accept_changed: whether the data may be others than those of the run.
  """

  def __init__(self, run: Run, accept_changed: bool):
    self.run, self._accept_changed = run, accept_changed
    self.said: list[str] = []  # by the converter
    self.config: Config = run.past.parsed
    at = lambda of: lambda config, *rest: of(run.mesh, at_step(config, run.step), *rest)
    self.given = Given(
      config=self.config,
      variables=of_network(run.variables),
      linear_maps=linear_maps(self.config.model),
      rows=self._rows,
      outputs=at(outputs_of),
      start=self._start,
      loss=at(loss_of),
      slopes=at(slopes_of),
      check=lambda config: check(after(config, run.step)),
      say=self.said.append,
    )

  def comparison(self, config: Config, variables: Any, converter: str) -> str:
    """A line: by how much the outputs of the new run, at its step 0, differ on rows.

    Raises:
      UserError: they are not finite, where the run's are.
    """
    try:
      self._data_now  # noqa: B018
    except UserError as error:
      return f'outputs not compared: {error}'
    rows = self._rows(UNITS)
    before, _ = self.given.outputs(self.config, self.given.variables, rows)
    now, _ = outputs_of(self.run.mesh, at_step(config, 0), variables, rows)
    if jnp.isfinite(before).all() and not jnp.isfinite(now).all():
      raise UserError(
        f'converter={converter!r}: the outputs on {len(now)} rows are not finite'
      )
    change, count = jnp.abs(now - before).max(), len(before)
    return f'outputs {span(before)}, changed by at most {change:.3g} on {count} rows'

  def saved_data(self) -> tuple[Any, dict[str, Any], dict[str, Any] | None]:
    """Position, description and record of the data, as the new checkpoint has them."""
    past = self.run.past
    position = load_json(past.workdir, 'data', '--workdir', past.step)
    if '_data' in vars(self):  # these have been prepared, and accepted
      return position, self._data.describe(), self._data.record()
    return position, past.needs, past.record

  @functools.cached_property
  def _data_now(self) -> Any:
    return self.run.data_now()

  @functools.cached_property
  def _data(self) -> Any:
    self.run.check_data(self._data_now, SPLITS, self._accept_changed)
    return self._data_now

  def _rows(self, units: int) -> dict[str, Any]:
    """Evenly taken from the train split, with about so many units."""
    rows = self._data.train
    positions, _ = self.config.model.row_outputs(self.config)
    count = min(max(units // positions, 1), len(rows))
    return rows.read(range(0, len(rows), -(-len(rows) // count)))

  def _start(self) -> dict[str, Any]:
    """Fresh variables, where the run began with these."""
    if self.config.restore:
      raise UserError(
        f'restore={self.config.restore!r}: must be empty, since the run must have begun '
        'with fresh parameters; what is converted is trained on in its own workdir'
      )
    workdir = pathlib.Path(self.run.past.workdir)
    name = made_by(workdir)
    if name and not getattr(CONVERTERS.get(name), 'fresh', False):
      raise UserError(
        f'--workdir={workdir}: made by the converter {name!r}; must have begun with fresh '
        'parameters'
      )
    placed = jax.tree.map(lambda x: x.sharding, self.run.variables)
    fresh = jax.jit(init_variables, static_argnums=0, out_shardings=placed)
    return fresh(self.config)


def made_by(workdir: pathlib.Path) -> str:
  """The name of the converter that wrote a workdir; '' if none did."""
  try:
    return json.loads((workdir / MADE).read_text())['converter']['kind']
  except FileNotFoundError:
    return ''
  except (OSError, ValueError, LookupError, TypeError) as error:
    raise UserError(f'{workdir / MADE}: is damaged: {error!r}') from None


def outputs_of(
  mesh: Mesh, config: Config, variables: Any, rows: Any, names: Sequence[str] = ()
) -> tuple[jax.Array, Any]:
  """(outputs, sown) of these rows, which every device computes."""
  with jax.set_mesh(mesh):
    return _outputs(_computable(config), tuple(names), variables, rows)


def loss_of(mesh: Mesh, config: Config, variables: Any, rows: Any) -> float:
  """Mean over the units of these rows, as Given has it."""
  _check_loss(config)
  config = _computable(config)
  with jax.set_mesh(mesh):
    sums = [_sums(config, variables, part) for part in _passes(config, rows)]
  loss, count = np.sum([(one['loss'], one['count']) for one in sums], axis=0)
  return float(loss / count)


def slopes_of(
  mesh: Mesh, config: Config, variables: Any, rows: Any, along: Any = None
) -> Any:
  """Gradient or product with the Hessian on these rows, as Given has them."""
  _check_loss(config)
  config = with_kernels(config, 'xla')  # kernels have no second derivative
  total = max(int(rows['valid'].sum()), 1)
  add = functools.partial(jax.tree.map, jnp.add)
  with jax.set_mesh(mesh):
    parts = (_slopes(config, variables, part, along) for part in _passes(config, rows))
    return jax.tree.map(lambda x: x / total, functools.reduce(add, parts))


def _check_loss(config: Config) -> None:
  """Refuses a loss that compares with a reference, which converters leave behind."""
  if config.traits.reference:
    raise UserError(
      f'task={config.task!r}: must be another for a converter that looks at the loss, '
      'since this one compares with the parameters that the run began with'
    )


def _computable(config: Config) -> Config:
  """Without kernels that this machine lacks."""
  return with_kernels(config, 'auto') if lacking_kernels(config) else config


def _passes(config: Config, rows: dict[str, Any]) -> Iterator[dict[str, Any]]:
  """The rows in parts of about UNITS units, nearly alike."""
  count = len(rows['valid'])
  parts = min(-(-count * task_of(config).row_units(config) // UNITS), count)
  split = {name: np.array_split(x, parts) for name, x in rows.items()}
  return (dict(zip(split, part)) for part in zip(*split.values()))


@functools.partial(jax.jit, static_argnums=0)
def _sums(config: Config, variables: Any, rows: Any) -> dict[str, jax.Array]:
  return task_of(config).forward(config, variables, rows, jax.random.key(0), False).sums


@functools.partial(jax.jit, static_argnums=0)
def _slopes(config: Config, variables: Any, rows: Any, along: Any) -> Any:
  """Of the sum over the units; by two backward passes where it is the Hessian's."""
  key = jax.random.key(0)

  def loss(params):
    now = variables | {'params': params}
    return task_of(config).forward(config, now, rows, key, True).sums['loss']

  gradient = jax.grad(loss)
  if along is None:
    return gradient(variables['params'])
  share = lambda params: optax.tree.vdot(gradient(params), along)
  return jax.grad(share)(variables['params'])


@functools.partial(jax.jit, static_argnums=(0, 1))
def _outputs(config: Config, names: tuple[str, ...], variables: Any, rows: Any) -> tuple:
  key = jax.random.key(0)
  seen = task_of(config).forward(config, variables, rows, key, False, names)
  return seen.outputs, seen.sown


def changes(old: Config, new: Config) -> Iterator[str]:
  """A line for each field that differs; '-' where there is none of that name."""
  before, now = _shown(old), _shown(new)
  for path in dict.fromkeys([*before, *now]):
    if before.get(path) != now.get(path):
      yield f'{path}: {before.get(path, "-")} -> {now.get(path, "-")}'


def flags(old: Config, new: Config) -> str:
  """What makes the new config of the file that the old one came from."""
  before, now = _shown(old), _shown(new)
  for where, _, kind in schema.kinds_in(new):
    if before.get(where) != now.get(where, before.get(where)):  # a flag sets its defaults
      inside = lambda path, where=where: path.startswith(f'{where}.')
      before = {path: value for path, value in before.items() if not inside(path)}
      before |= _shown(type(kind)(), f'{where}.')
  changed = [f'{path}={value}' for path, value in now.items() if before.get(path) != value]
  return ' '.join(shlex.quote(f'--config.{one}') for one in changed)


def _shown(section: Any, above: str = '') -> dict[str, str]:
  return {path: f'{value}' for path, value, _ in schema.leaves(section, above)}


def check_variables(config: Config, variables: Any, converter: str) -> None:
  """A converter's own fault: what it gives is not what a model of its config has."""
  shapes = lambda tree: {
    path_name(path): (x.shape, x.dtype)
    for path, x in jax.tree_util.tree_leaves_with_path(tree)
  }
  found, needed = shapes(variables), shapes(abstract_variables(config))
  for path in sorted({*found, *needed}):
    if found.get(path) != needed.get(path):
      raise UserError(
        f'converter={converter!r}: gives {path} {found.get(path)}; a model of its config '
        f'has {needed.get(path)}'
      )


def check_finite(variables: Any, converter: str) -> None:
  """As training, which saves nothing that is not finite."""
  for path, x in jax.tree_util.tree_leaves_with_path(variables):
    if not jnp.isfinite(x).all():
      raise UserError(f'converter={converter!r}: {path_name(path)} is not finite')


def write_run(
  output: pathlib.Path, config: Config, variables: Any, data: tuple, made: dict[str, Any]
) -> None:
  """A workdir at step 0: there and complete, or not there. UserError if it cannot be.

  `made` says of what and how.
  """
  position, *described = data
  place = SimpleNamespace(get_state=lambda: position)
  saved = state_from(config, variables), place, json.loads(to_json(config)), *described
  with new_folder('--output', output) as folder:
    with contextlib.closing(Checkpoints(folder, config.checkpoint)) as saving:
      saving.save(*saved, eval_loss=None)
      saving.wait()
    write_text(folder / 'config.json', to_json(config))
    write_text(folder / MADE, json.dumps(made, indent=2) + '\n')
