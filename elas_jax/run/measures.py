"""Measures: of a run at its evaluations and in the step after each, and of a workdir."""

import functools
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from elas_jax.config.config import Config
from elas_jax.data.pipeline import eval_batches
from elas_jax.run.evaluation import put_batch
from elas_jax.run.sown import not_sown
from elas_jax.systems.kinds import about, name_of
from elas_jax.systems.measures import MEASURES
from elas_jax.systems.seen import Seen
from elas_jax.systems.sown import asked
from elas_jax.tasks import task_of

UNITS = 2048  # tokens or examples of the batch, about

Values = dict[str, dict[str, np.ndarray]]  # by measure and name, each () or (N,)


class Measures:
  """eval.measures on one fixed batch of the validation split.

  Those that have nothing to measure in this model are left out.

  Args:
    config: of the run.
    rows: the validation split.
    units: of the batch, about.
  """

  def __init__(self, config: Config, rows: Any, mesh: Mesh, units: int = UNITS):
    self._config, self._rows, self._mesh, self._units = config, rows, mesh, units
    self._measures = tuple(
      one for one in config.eval.measures if not why_lacking(config, one)
    )
    self._kept = self._step = None

  def values(self, config: Config, variables: Any) -> Values:
    """Of these variables; `config` is at_step of their step."""
    return self._look(config, variables)[0]

  def measure(self, config: Config, step: int, variables: Any) -> dict[str, float]:
    """As `by_layer` has the values at `step`; keeps what those compare that do."""
    values, self._kept = self._look(config, variables)
    self._step = step
    return by_layer(values)

  def resume(self, config: Config, step: int, variables: Any) -> None:
    """Keeps what `measure` kept, in a run that goes on after an evaluation."""
    if any(hasattr(one, 'kept') for one in self._measures):
      self.measure(config, step, variables)

  def due(self, step: int) -> bool:
    """Whether `measure` has kept something of the step before."""
    return bool(self._kept) and step == self._step + 1

  def change(self, config: Config, variables: Any) -> dict[str, float]:
    """What has changed since `measure`; asks for no second look."""
    comparing = tuple(one for one in self._measures if hasattr(one, 'kept'))
    values = _changed(comparing, config, variables, self.batch, self._kept)
    self._kept = self._step = None
    return by_layer(_read(values))

  def _look(self, config: Config, variables: Any) -> tuple[Values, Any]:
    if not self._measures:
      return {}, None
    values, kept = _measured(self._measures, config, variables, self.batch)
    return _read(values), kept

  @functools.cached_property
  def batch(self) -> dict[str, jax.Array]:
    ways = self._mesh.shape['data'] * self._mesh.shape['fsdp']
    in_row, _ = self._config.model.row_outputs(self._config)
    # No more rows than the split has, filled up to share them among the devices.
    wanted = min(-(-self._units // in_row), len(self._rows))
    batches = eval_batches(
      self._rows,
      batch_size=-(-wanted // ways) * ways,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
      max_tokens=self._units,
    )
    return put_batch(next(iter(batches)), self._mesh)


def why_lacking(config: Config, measure: Any) -> str:
  """Why there is nothing to measure in this model, or ''."""
  if why := about(measure, 'lacking', config):
    return why
  names = not_sown(config, measure)
  return f'no layer of the model gives away {names[0]!r}' if names else ''


def lacking(config: Config) -> list[str]:
  """A line for each measure of the config that its model has nothing for."""
  found = []
  for one in config.eval.measures:
    if why := why_lacking(config, one):
      found.append(f'eval.measures: {name_of(MEASURES, one)} has nothing to measure: {why}')
  return found


def _seen(measures: tuple, config: Config, variables: Any, batch: Any) -> Seen:
  forward, key = task_of(config).forward, jax.random.key(0)
  return forward(config, variables, batch, key, False, asked(measures))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _measured(measures: tuple, config: Config, variables: Any, batch: Any) -> tuple:
  """(values by measure, what those keep that compare two steps)."""
  seen = _seen(measures, config, variables, batch)
  values = {name_of(MEASURES, one): one.measure(seen) for one in measures}
  return _everywhere(values), _kept(measures, seen)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _changed(
  measures: tuple, config: Config, variables: Any, batch: Any, before: Any
) -> dict[str, Any]:
  seen = _seen(measures, config, variables, batch)
  of = {name_of(MEASURES, one): one for one in measures}
  now = _kept(measures, seen)
  return _everywhere({x: of[x].change(before[x], now[x], seen) for x in now})


def _kept(measures: tuple, seen: Seen) -> dict[str, Any]:
  return {
    name_of(MEASURES, one): one.kept(seen) for one in measures if hasattr(one, 'kept')
  }


def _everywhere(values: Any) -> Any:
  """On every device: parts of layers lie on those of other processes too."""
  put = lambda x: jax.lax.with_sharding_constraint(x, PartitionSpec())
  return jax.tree.map(put, values)


def _read(values: Any) -> Values:
  return jax.tree.map(np.asarray, jax.device_get(values))


def by_layer(values: Values) -> dict[str, float]:
  """MEASURE/VALUE, of arrays their mean, and MEASURE/VALUE/LAYER."""
  result = {}
  for measure, found in values.items():
    for name, value in found.items():
      where = f'{measure}/{name}'
      result[where] = float(value.mean())
      if value.ndim:
        result |= {f'{where}/{i}': float(x) for i, x in enumerate(value)}
  return result


def title(name: str) -> str:
  """Of a measure's plots."""
  return getattr(MEASURES[name], 'title', name)


def formats(line: dict[str, float]) -> dict[str, str]:
  """How a line of progress says the values of measures that it has, by name.

  Those that a measure's `shown` names, or all of a measure without, but no single layers.
  """
  found = {}
  for measure, kind in MEASURES.items():
    if shown := getattr(kind, 'shown', None):
      found |= {f'{measure}/{name}': text for name, text in shown.items()}
    else:
      own = [name for name in line if name.startswith(f'{measure}/')]
      whole = [name for name in own if not name.rpartition('/')[2].isdigit()]
      found |= {name: name.replace('/', ' ') + ' {:.4g}' for name in whole}
  return {name: text for name, text in found.items() if name in line}
