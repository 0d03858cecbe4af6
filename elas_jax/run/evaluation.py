"""Evaluation: loss and what else the task measures, over a set of rows."""

import functools
import math
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from elas_jax.common.memory import check_memory, tree_bytes
from elas_jax.config.config import Config
from elas_jax.data.pipeline import eval_batches
from elas_jax.run.memory import output_bytes
from elas_jax.run.sharding import batch_sharding
from elas_jax.tasks import task_of
from elas_jax.tasks.task import Batch, Sums


@functools.partial(jax.jit, static_argnames='config')
def eval_step(config: Config, variables: Any, batch: Batch) -> Sums:
  return task_of(config).forward(config, variables, batch, jax.random.key(0), False).sums


def put_batch(batch: Batch, mesh: Mesh) -> Batch:
  """This process's rows of a batch as global arrays, rows split over data and fsdp."""
  sharding = batch_sharding(mesh)
  return {
    name: jax.make_array_from_process_local_data(sharding, value)
    for name, value in batch.items()
  }


def _sums(
  config: Config, variables: Any, rows: Any, mesh: Mesh, batch_size: int, share: float
) -> dict[str, np.ndarray]:
  """The sums over each batch of a set, or of this share of eval.units in it."""
  batches = eval_batches(
    rows,
    batch_size=batch_size,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
    max_tokens=math.ceil(config.eval.units * share),
  )
  with jax.set_mesh(mesh):
    sums = [eval_step(config, variables, put_batch(batch, mesh)) for batch in batches]
  return jax.tree.map(lambda *values: np.array(values, np.float64), *jax.device_get(sums))


def evaluate(config: Config, variables: Any, rows: Any, mesh: Mesh) -> dict[str, float]:
  """The task's metrics, 'eval/...', over eval.units units of a set (0: all of it).

  Of a mixture each source gets its share of them, and has a loss of its own as well.
  """
  # No more rows than the split has, filled up to share them among the devices.
  ways = mesh.shape['data'] * mesh.shape['fsdp']
  batch_size = min(config.eval.batch_size, -(-len(rows) // ways) * ways)
  needed = {
    'parameters': tree_bytes(variables),
    'outputs': output_bytes(config, mesh, batch_size),
  }
  check_memory(f'eval.batch_size={config.eval.batch_size}', needed)
  parts = getattr(rows, 'parts', {'': rows})
  sums = {
    name: _sums(config, variables, part, mesh, batch_size, len(part) / len(rows))
    for name, part in parts.items()
  }
  joined = jax.tree.map(lambda *values: np.concatenate(values), *sums.values())
  values = task_of(config).eval_values(joined)
  if any(parts):  # they have names
    own = {name: task_of(config).eval_values(of) for name, of in sums.items()}
    values |= {f'loss_{name}': of['loss'] for name, of in own.items()}
  if rows.lost_share:  # then bits per byte are not comparable
    values['lost_share'] = rows.lost_share
  return {f'eval/{name}': value for name, value in values.items()}
