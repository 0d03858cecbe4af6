"""Evaluation: loss and what else the task measures, on the validation split.

  python -m elas_jax.evaluate --workdir=DIR

prints the newest checkpoint's and writes DIR/evaluation.json; null there is a number that
is not finite. Where that file cannot be written, the numbers are printed all the same, and
the command ends with an error.
"""

import functools
import pathlib
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from elas_jax.cli import Parser, integer, run_command
from elas_jax.config import Config
from elas_jax.data.pipeline import eval_batches
from elas_jax.errors import UserError
from elas_jax.memory import check_memory, output_bytes, tree_bytes
from elas_jax.metrics import strict_json
from elas_jax.places import write_text
from elas_jax.sharding import batch_sharding
from elas_jax.tasks import task_of
from elas_jax.tasks.task import Batch, Sums


@functools.partial(jax.jit, static_argnames='config')
def eval_step(config: Config, variables: Any, batch: Batch) -> Sums:
  return task_of(config).loss_sums(config, variables, batch, jax.random.key(0), False)[0]


def put_batch(batch: Batch, mesh: Mesh) -> Batch:
  """This process's rows of a batch as global arrays, rows split over data and fsdp."""
  sharding = batch_sharding(mesh)
  return {
    name: jax.make_array_from_process_local_data(sharding, value)
    for name, value in batch.items()
  }


def evaluate(config: Config, variables: Any, rows: Any, mesh: Mesh) -> dict[str, float]:
  """The task's metrics, 'eval/...', over eval.tokens units of a set (0: all of it)."""
  # No more rows than the split has, filled up to share them among the devices.
  ways = mesh.shape['data'] * mesh.shape['fsdp']
  batch_size = min(config.eval.batch_size, -(-len(rows) // ways) * ways)
  needed = {
    'parameters': tree_bytes(variables),
    'outputs': output_bytes(config, mesh, batch_size),
  }
  check_memory(f'eval.batch_size={config.eval.batch_size}', needed)
  batches = eval_batches(
    rows,
    batch_size=batch_size,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
    max_tokens=config.eval.tokens,
  )
  sums = []
  with jax.set_mesh(mesh):
    for batch in batches:
      sums.append(eval_step(config, variables, put_batch(batch, mesh)))
  stacked = jax.tree.map(
    lambda *values: np.array(values, np.float64), *jax.device_get(sums)
  )
  values = task_of(config).eval_values(stacked)
  if rows.lost_share:  # then bits per byte are not comparable
    values['lost_share'] = rows.lost_share
  return {f'eval/{name}': value for name, value in values.items()}


def main(arguments: list[str] | None = None) -> None:
  from elas_jax import workdir as workdirs

  parser = Parser(
    prog='python -m elas_jax.evaluate', description='Evaluate a checkpoint of a run.'
  )
  parser.add_place('--workdir', required=True, help='folder of the run')
  parser.add_argument('--step', type=integer(), help='checkpoint; default: the newest')
  parser.add_argument(
    '--tokens', type=integer(), help='validation tokens, 0 = the whole split; default: all'
  )
  parser.add_argument('--batch_size', type=integer(1), help="default: the run's")
  parser.add_argument(
    '--accept_changed',
    action='store_true',
    help="evaluate on other validation data than the run's",
  )
  options = parser.parse_args(arguments)
  run = workdirs.open_run(
    options.workdir,
    options.step,
    {'eval.tokens': options.tokens or 0, 'eval.batch_size': options.batch_size},
  )
  of_run = ('validation',)
  data = run.prepared(of_run, options.accept_changed)
  result = {'step': run.step}
  result |= evaluate(run.config, run.variables, data.validation, run.mesh)
  for name, value in result.items():
    print(f'{name:28s} {value:,.6g}', flush=True)
  change = run.past.change(data, of_run)
  if change:
    print(f'not on the data of the run: {change}', flush=True)
  written = result | ({'changed_data': change} if change else {})
  path = pathlib.Path(options.workdir) / 'evaluation.json'
  try:
    write_text(path, strict_json(written, indent=2) + '\n')
  except OSError as error:
    raise UserError(f'{path}: not written: {error.strerror}') from error
  print(f'written to {path}')


if __name__ == '__main__':
  run_command(main)
