"""Give a trained B-spline KAN new knots (arXiv 2404.19756, section 2.4).

  python -m elas_jax.extend_grid --workdir=runs/fit --output=runs/finer --grid=20
  python -m elas_jax.extend_grid --workdir=runs/fit --output=runs/moved

A finer grid, or as many intervals where the inputs of each layer are; up to 4096 rows of
the train split show them. Writes a workdir at step 0, to train on from by --config.restore.
"""

import contextlib
import dataclasses
import functools
import json
import pathlib
import tempfile
from types import SimpleNamespace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from elas_jax.common.errors import UserError
from elas_jax.common.interruption import cleaned_up
from elas_jax.common.places import write_text
from elas_jax.config import checks, schema
from elas_jax.config.cli import Parser, integer, run_command
from elas_jax.config.config import Config, to_json
from elas_jax.ops.kan.bspline import bspline_basis, extend_grid, update_grid
from elas_jax.run.checkpoint import Checkpoints, load_json
from elas_jax.run.state import state_from
from elas_jax.run.workdir import open_run
from elas_jax.systems.linears import kan_bspline
from elas_jax.tasks import task_of

ROWS = 4096
span = lambda x: f'{x.min():.4g} to {x.max():.4g}'


def outputs(config: Config, variables: Any, x: jax.Array) -> tuple[jax.Array, dict]:
  """The network's, and by its path what each B-spline layer gets, in their order."""
  inputs = {}

  def record(call, args, kwargs, context):
    if isinstance(context.module, kan_bspline.Module) and context.method_name == '__call__':
      inputs['/'.join(context.module.path)] = args[0]
    return call(*args, **kwargs)

  with nn.intercept_methods(record):
    return task_of(config).module(config).apply(variables, x), inputs


@functools.partial(jax.jit, static_argnames=('order', 'grid'))
def new_grid(x_PxI: jax.Array, c_IxSxO, knots_IxM, *, order: int, grid: int):
  """(coefficients, knots) of `grid` intervals, one input after the other.

  More intervals either subdivide the old ones, which keeps the curves inside their range,
  or go where the samples are: for each input what changes its curves less at the samples.
  """
  extra = grid + order - c_IxSxO.shape[1]
  pad = (0, 0), (extra // 2, extra - extra // 2)  # intervals where the curves are zero

  def of_input(part):
    x_Px1, c, knots = part
    wide = jnp.pad(c, (*pad, (0, 0))), jnp.pad(knots, pad, 'reflect', reflect_type='odd')
    moved = update_grid(x_Px1, *wide, order)
    if not extra:
      return moved
    values = lambda c, knots: jnp.tensordot(bspline_basis(x_Px1, knots, order), c, 2)
    change = lambda new: jnp.square(values(*new) - values(c, knots)).sum()
    finer = extend_grid(c, knots, order, grid)
    better = functools.partial(jnp.where, change(moved) < change(finer))
    return jax.tree.map(better, moved, finer)

  inputs = x_PxI.T[:, :, None], c_IxSxO[:, None], knots_IxM[:, None]
  return tuple(array[:, 0] for array in jax.lax.map(of_input, inputs))


def with_new_grid(variables: Any, inputs: dict[str, jax.Array], order: int, grid: int):
  """The variables on new knots for these inputs of the layers; prints old and new."""
  flat = flatten_dict(variables, sep='/')
  for layer, x_PxI in inputs.items():
    names = f'params/{layer}/coefficients', f'buffers/{layer}/knots'
    c, knots = old = [flat[name] for name in names]
    new = new_grid(x_PxI, *old, order=order, grid=grid)
    if not jnp.isfinite(new[0]).all():
      raise UserError(f'{layer}: no knots fit between its inputs, {span(x_PxI)}')
    flat |= zip(names, new)
    before, now = (span(array[:, order:-order]) for array in (knots, new[1]))
    print(f'{layer}: grid {c.shape[1] - order} over {before} -> {grid} over {now}')
  return unflatten_dict(flat, sep='/')


def check(config: Config, grid: int | None) -> None:
  """Refuses what has no B-splines that get their layer's own input, and coarser grids."""
  values = {path: value for path, value, _ in schema.leaves(config)}
  for field, accepted in (
    ('task', ('regression', 'classification')),
    ('model.linear', ('kan_bspline',)),
    ('model.architecture', ('stack',)),
    ('model.linear.data_norm', ('none',)),
  ):
    if (value := values[field]) not in accepted:
      raise UserError(f'{field}={value!r}: must be {" or ".join(map(repr, accepted))}')
  if grid is not None and grid <= (old := config.model.linear.grid):
    raise UserError(
      f'--grid={grid}: must be larger than model.linear.grid={old} of the run'
    )


def with_grid(config: Config, grid: int) -> Config:
  """The config with that many intervals."""
  linear = dataclasses.replace(config.model.linear, grid=grid)
  changed = dataclasses.replace(config.model, linear=linear)
  config = dataclasses.replace(config, model=changed)
  checks.check(config)
  return config


def write_run(output: pathlib.Path, config: Config, *saved: Any) -> None:
  """A workdir with these items of a checkpoint: there and complete, or not there."""
  output.parent.mkdir(parents=True, exist_ok=True)
  temporary = tempfile.TemporaryDirectory(prefix=f'{output.name}.tmp-', dir=output.parent)
  with cleaned_up(), temporary as at:
    made = pathlib.Path(at, 'run')
    with contextlib.closing(Checkpoints(made, config.checkpoint)) as saving:
      saving.save(*saved, eval_loss=None)
      saving.wait()
    write_text(made / 'config.json', to_json(config))
    made.rename(output)


def main(arguments: list[str] | None = None) -> None:
  parser = Parser(
    prog='python -m elas_jax.extend_grid', description=__doc__.splitlines()[0]
  )
  parser.add_place('--workdir', required=True, help='folder of the run')
  parser.add_place('--output', required=True, help='folder of the result')
  parser.add_argument('--grid', type=integer(1), help='intervals; default: as many, moved')
  parser.add_argument('--step', type=integer(), help='checkpoint; default: the newest')
  parser.add_argument(
    '--accept_changed', action='store_true', help="fit to other data than the run's"
  )
  options = parser.parse_args(arguments)
  workdir, output = options.workdir, options.output
  if output.exists() and not (output.is_dir() and not any(output.iterdir())):
    raise UserError(f'--output={output}: exists; must be a new or an empty folder')
  run = open_run(workdir, options.step, {'eval.batch_size': jax.device_count()})
  check(run.past.parsed, options.grid)
  grid = options.grid or run.config.model.linear.grid
  config = with_grid(run.past.parsed, grid)
  position = load_json(workdir, 'data', '--workdir', run.step)
  data = run.prepared(accept_changed=options.accept_changed)
  x = data.train.read(range(0, len(data.train), -(-len(data.train) // ROWS)))['inputs']
  before, inputs = outputs(run.config, run.variables, x)
  new = with_new_grid(run.variables, inputs, config.model.linear.order, grid)
  change = jnp.abs(outputs(config, new, x)[0] - before).max()
  print(f'outputs {span(before)}, changed by at most {change:.3g} on {len(x)} rows')
  described = json.loads(to_json(config)), data.describe(), data.record()
  place = SimpleNamespace(get_state=lambda: position)
  try:
    write_run(output, config, state_from(config, new), place, *described)
  except OSError as error:
    raise UserError(f'--output={output}: cannot be written: {error}') from error
  flags = f'--config.restore={output} --config.model.linear.grid={grid} --workdir=DIR'
  print(f'to train on: python -m elas_jax.train --config=AS_BEFORE {flags}')


if __name__ == '__main__':
  run_command(main)
