"""The measures of a run: at its evaluations, and in the step that follows each."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from elas_jax.config.config import Config
from elas_jax.data.pipeline import eval_batches
from elas_jax.run.evaluation import put_batch
from elas_jax.systems.kinds import about, name_of
from elas_jax.systems.measures import MEASURES
from elas_jax.systems.seen import Seen
from elas_jax.tasks import task_of

UNITS = 2048  # tokens or examples of the batch, about


class Measures:
  """eval.measures on one fixed batch of the validation split.

  Args:
    config: of the run.
    rows: the validation split.
    units: of the batch, about.
  """

  def __init__(self, config: Config, rows: Any, mesh: Mesh, units: int = UNITS):
    self._config, self._rows, self._mesh, self._units = config, rows, mesh, units
    self._measures = tuple(
      one for one in config.eval.measures if not about(one, 'lacking', config, default='')
    )
    self._kept = self._step = None

  def measure(self, config: Config, step: int, variables: Any) -> dict[str, float]:
    """At `step`, of which `config` is at_step; values by MEASURE/VALUE."""
    if not self._measures:
      return {}
    values, self._kept = _measured(self._measures, config, variables, self._batch)
    self._step = step
    return by_layer(values)

  def due(self, step: int) -> bool:
    """Whether `measure` has kept something of the step before."""
    return bool(self._kept) and step == self._step + 1

  def change(self, config: Config, variables: Any) -> dict[str, float]:
    """What has changed since `measure`; asks for no second look."""
    values = _changed(self._measures, config, variables, self._batch, self._kept)
    self._kept = self._step = None
    return by_layer(values)

  @functools.cached_property
  def _batch(self) -> dict[str, jax.Array]:
    ways = self._mesh.shape['data'] * self._mesh.shape['fsdp']
    units = task_of(self._config).row_units(self._config)
    rows = -(-self._units // units // ways) * ways
    batches = eval_batches(
      self._rows,
      batch_size=rows,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
      max_tokens=self._units,
    )
    return put_batch(next(iter(batches)), self._mesh)


def lacking(config: Config) -> list[str]:
  """A line for each measure of the config that its model has nothing for."""
  found = []
  for one in config.eval.measures:
    if why := about(one, 'lacking', config, default=''):
      found.append(f'eval.measures: {name_of(MEASURES, one)} has nothing to measure: {why}')
  return found


def _seen(measures: tuple, config: Config, variables: Any, batch: Any) -> Seen:
  names = [name for one in measures for name in getattr(one, 'sown', ())]
  key, names = jax.random.key(0), tuple(dict.fromkeys(names))
  return task_of(config).forward(config, variables, batch, key, False, names)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _measured(measures: tuple, config: Config, variables: Any, batch: Any) -> tuple:
  """(values by measure, what those keep that compare two steps)."""
  seen = _seen(measures, config, variables, batch)
  values = {name_of(MEASURES, one): one.measure(seen) for one in measures}
  return values, _kept(measures, seen)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _changed(
  measures: tuple, config: Config, variables: Any, batch: Any, before: Any
) -> dict[str, Any]:
  seen = _seen(measures, config, variables, batch)
  of = {name_of(MEASURES, one): one for one in measures}
  now = _kept(measures, seen)
  return {name: of[name].change(before[name], now[name], seen) for name in now}


def _kept(measures: tuple, seen: Seen) -> dict[str, Any]:
  return {
    name_of(MEASURES, one): one.kept(seen) for one in measures if hasattr(one, 'kept')
  }


def by_layer(values: dict[str, dict[str, jax.Array]]) -> dict[str, float]:
  """MEASURE/VALUE, of arrays their mean, and MEASURE/VALUE/LAYER."""
  result = {}
  for measure, found in jax.device_get(values).items():
    for name, value in found.items():
      where = f'{measure}/{name}'
      result[where] = float(jnp.mean(value))
      if value.ndim:
        result |= {f'{where}/{i}': float(x) for i, x in enumerate(value)}
  return result
