"""What a run surely needs of a device's memory, against what there is, before compiling.

Lower bounds: what is refused cannot run, what is not may still not fit.
"""

import functools
import math
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp

from elas_jax.config import Config
from elas_jax.errors import UserError

LARGEST_DEVICE = 10**12  # bytes: more than any accelerator has


def device_memory() -> int | None:
  """Bytes that this process may use on one of its devices; None where it is not known."""
  device = jax.local_devices()[0]
  if device.platform == 'cpu':
    return host_memory() // len(jax.local_devices())  # they share it
  return (device.memory_stats() or {}).get('bytes_limit')


def host_memory() -> int:
  """Bytes of memory, of the machine or of the control group that this process is in."""
  pages = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
  return min([pages, *control_group_limits()])


def control_group_limits(
  groups: str = '/proc/self/cgroup', root: str = '/sys/fs/cgroup'
) -> list[int]:
  """The limits of this process' control group and of those around it, of both versions.

  Inside a container the path in `groups` may be that of the host; then the container's own
  limit is at the root.
  """
  file, limits = pathlib.Path(groups), []
  for line in file.read_text().splitlines() if file.exists() else []:
    _, controllers, path = line.split(':', 2)
    if controllers not in ('', 'memory'):
      continue
    name = 'memory.limit_in_bytes' if controllers else 'memory.max'
    inner = pathlib.PurePath(path.lstrip('/'))
    for folder in (inner, *inner.parents):
      limit = pathlib.Path(root, controllers, folder, name)
      if limit.exists() and (text := limit.read_text().strip()).isdecimal():  # not 'max'
        limits.append(int(text))
  return limits


def tree_bytes(tree: Any) -> int:
  """Bytes of a tree's arrays on one device, by their shardings where they have some."""

  def size(x):
    sharding = getattr(x, 'sharding', None)
    shape = sharding.shard_shape(x.shape) if sharding else x.shape
    return math.prod(shape) * x.dtype.itemsize

  return sum(size(x) for x in jax.tree.leaves(tree))


def activation_bytes(config: Config, mesh: jax.sharding.Mesh, rows: int, kept: bool) -> int:
  """What a pass over so many rows of all devices holds at once on one of them, at least.

  The logits in float32 and, `kept` for the backward pass whatever model.remat is, the
  inputs of all layers. Of networks on rows inputs, outputs and what is between in a stack.
  """
  model, own = config.model, -(-rows // (mesh.shape['data'] * mesh.shape['fsdp']))
  if config.task != 'language':
    hidden = model.depth * model.width if kept and model.architecture == 'stack' else 0
    return 4 * own * (math.prod(model.input_shape) + hidden + model.outputs)
  logits = 4 * -(-model.vocab_size // mesh.shape['tensor'])
  layers = model.layers * jnp.dtype(model.compute_dtype).itemsize
  layers *= -(-model.width // mesh.shape['tensor']) if kept else 0
  return own * config.data.sequence_length * (logits + layers)


def training_bytes(config: Config, mesh: jax.sharding.Mesh, state: Any) -> dict[str, int]:
  """What training holds at once on one device, at least, by what it is for.

  `state` is the abstract one. All gradients are there together, for their norm.
  """
  micro = config.data.batch_size // config.train.accumulation
  return {
    'parameters': tree_bytes((state.params, state.buffers)),
    'optimiser': tree_bytes(state.opt_state),
    'gradients': tree_bytes(state.params),
    'activations': activation_bytes(config, mesh, micro, kept=True),
  }


def check_memory(given: str, needed: dict[str, int]) -> None:
  """Refuses what needs more than a device has; `given` names the fields and values."""
  if missing := missing_memory(needed):
    raise UserError(f'{given}: {missing}')


def missing_memory(needed: dict[str, int]) -> str | None:
  """What is needed and what a device has, if that is surely too little."""
  limit, total = device_memory(), sum(needed.values())
  if limit is None or total <= limit:
    return None
  parts = ', '.join(f'{name} {gigabytes(size)}' for name, size in needed.items())
  return (
    f'needs at least {gigabytes(total)} of memory on each device ({parts}), which has '
    f'{gigabytes(limit)}'
  )


def sizes(config: Config) -> str:
  """The fields that memory depends on most, with their values."""
  fields = {
    'language': 'model.width model.layers model.vocab_size data.batch_size '
    'data.sequence_length train.accumulation'
  }.get(config.task, 'model.width model.depth model.input_shape data.batch_size')
  value = lambda field: functools.reduce(getattr, field.split('.'), config)
  return ', '.join(f'{field}={value(field)}' for field in fields.split())


def gigabytes(size: int) -> str:
  return f'{size / 1e9:,.3g} GB' if size < 1e12 else f'{size / 1e9:,.0f} GB'
