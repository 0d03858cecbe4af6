"""--dry_run: what a config would train, and the memory it takes; nothing is allocated."""

import collections
from typing import Any

import jax

from elas_jax.common.errors import UserError
from elas_jax.common.memory import (
  LARGEST_DEVICE,
  device_memory,
  missing_memory,
  shown_bytes,
  tree_bytes,
)
from elas_jax.common.paths import path_name
from elas_jax.config.config import Config, at_step
from elas_jax.run import objectives
from elas_jax.run.kernel_checks import check_kernels_here
from elas_jax.run.memory import sizes, training_bytes
from elas_jax.run.sharding import batch_sharding, make_mesh
from elas_jax.run.state import abstract_state, parameter_count
from elas_jax.run.step import jit_train_step
from elas_jax.tasks import task_of


def dry_run(config: Config) -> dict[str, float]:
  """Prints and returns parameters, FLOPs and bytes per device of the training step.

  Sizes of the state are exact. That of the step is what the compiler for this machine's
  devices reports of it; on another kind of device attention
  and fusion differ.
  """
  check_kernels_here(config)
  objectives.check(config)
  mesh = make_mesh(config)
  state = abstract_state(config, mesh)
  print(f'parameters             {parameter_count(state.params):>16,}')
  for group, count in _groups(state.params).items():
    print(f'  {group:20s} {count:>16,}')
  task, B = task_of(config), config.data.batch_size
  flops, units = task.unit_flops(config, state.params), task.row_units(config)
  slots = config.train.steps * B * units
  unit = task.unit.removesuffix('s')
  print(f'{"model FLOPs a " + unit:22s} {flops:>16.3e}')
  print(
    f'{unit + " slots of the run":22s} {slots:>16.3e}  '
    f'({config.train.steps:,} steps of {B} x {units})'
  )
  result = {'parameters': parameter_count(state.params), f'flops_per_{unit}': flops}
  needed, limit = training_bytes(config, mesh, state), device_memory()
  kind = jax.devices()[0].device_kind
  there_is = 'unknown' if limit is None else shown_bytes(limit)
  print(f'memory of each of {len(jax.devices())} devices ({kind}, {there_is}):')
  for name, size in needed.items():
    least = ', at least' if name.endswith('activations') else ''
    print(f'  {name + least:35s} {size / 1e9:>13.3f} GB')
  if missing := missing_memory(needed):
    print(f'  TOO LITTLE for training here: {missing}')
    # Compilers break off, in ways of their own, with programs of such sizes.
    if sum(needed.values()) > LARGEST_DEVICE:
      raise UserError(f'{sizes(config)}: {missing}')
  print(
    '  compiling the step to know more, which takes minutes for a large model', flush=True
  )
  step = max(
    step_bytes(config, mesh, state, jit_train_step(config, mesh, now))
    for now in {config, at_step(config, 1), at_step(config, config.train.steps)}
  )
  print(f'  {"gradients and activations, compiled":35s} {step / 1e9:>13.3f} GB')
  print(
    '  The last is what the training step takes as compiled for this kind of device; '
    'train.accumulation and model.remat lower it. With dense phases it is the largest '
    'of all.'
  )
  return result | {
    'parameter_bytes': tree_bytes(state.params),
    'optimizer_bytes': tree_bytes(state.opt_state),
    'step_bytes': step,
  }


def _groups(params: Any) -> dict[str, int]:
  """Parameters by the part of the model that they are in."""
  counts = collections.Counter()
  for path, leaf in jax.tree_util.tree_leaves_with_path(params):
    parts = path_name(path).split('/')
    group = parts[1] if parts[0] in ('layers', 'network') else parts[0]
    counts['norms' if group.endswith('norm') else group] += leaf.size
  return dict(counts)


def step_bytes(config: Config, mesh: jax.sharding.Mesh, state: Any, step: Any) -> int:
  """What the compiled step needs on one device besides its arguments."""
  sharding = batch_sharding(mesh)
  batch = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
    task_of(config).rows(config, config.data.batch_size),
  )
  with jax.set_mesh(mesh):
    compiled = step.lower(state, batch).compile()
  return compiled.memory_analysis().temp_size_in_bytes
