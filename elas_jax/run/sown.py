"""Whether a model gives away what an objective or a measure reads."""

import functools
from typing import Any

import jax

from elas_jax.config.config import Config
from elas_jax.run.state import abstract_variables
from elas_jax.systems.sown import asked
from elas_jax.tasks import task_of


def not_sown(config: Config, reader: Any) -> list[str]:
  """Of the names that it needs those that no layer of the model sows; computes nothing."""
  names = tuple(x for x in asked([reader]) if x not in getattr(reader, 'optional', ()))
  return [name for name in names if name not in _sown(config, names)]


@functools.cache
def _sown(config: Config, names: tuple[str, ...]) -> set[str]:
  if not names:
    return set()
  task = task_of(config)
  forward = lambda *given: task.forward(config, *given, False, names).sown
  rows, key = task.rows(config, 1), jax.eval_shape(lambda: jax.random.key(0))
  found = jax.eval_shape(forward, abstract_variables(config), rows, key)
  return {name for name, values in found.items() if values}
