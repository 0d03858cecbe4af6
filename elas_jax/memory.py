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
from jax.sharding import Mesh

from elas_jax.config import Config
from elas_jax.errors import UserError
from elas_jax.optim.groups import path_name

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


def output_bytes(config: Config, mesh: Mesh, rows: int) -> int:
  """The float32 logits, or values, of so many rows of all devices on one of them."""
  own = rows_of_device(mesh, rows)
  if config.task != 'language':
    return 4 * own * config.model.outputs
  entries = -(-config.model.vocab_size // mesh.shape['tensor'])
  return 4 * own * config.data.sequence_length * entries


def kept_bytes(config: Config, mesh: Mesh, rows: int) -> int:
  """What the backward pass of so many rows surely needs of the forward pass.

  The inputs of all layers, whatever model.remat is; of networks on rows those of a stack,
  or of the first layer.
  """
  model, own = config.model, rows_of_device(mesh, rows)
  if config.task != 'language':
    hidden = model.depth * model.width if model.architecture == 'stack' else 0
    return 4 * own * (math.prod(model.input_shape) + hidden)
  entries = model.layers * -(-model.width // mesh.shape['tensor'])
  size = jnp.dtype(model.compute_dtype).itemsize
  return own * config.data.sequence_length * entries * size


def rows_of_device(mesh: Mesh, rows: int) -> int:
  return -(-rows // (mesh.shape['data'] * mesh.shape['fsdp']))


def training_bytes(config: Config, mesh: Mesh, state: Any) -> dict[str, int]:
  """What training holds at once on one device, at least, by what it is for.

  `state` is the abstract one. Beside it there are, one after the other: what is kept of the
  forward pass with the outputs; the same with the gradients of the scanned layers; and,
  where their norm is needed first, all gradients. Those of micro-batches are summed in
  float32 all the while.
  """
  rows = config.data.batch_size // config.train.accumulation
  kept, outputs = kept_bytes(config, mesh, rows), output_bytes(config, mesh, rows)
  frozen = config.task == 'language' and config.model.linear == 'lora'
  trained = [
    (path_name(path), leaf)
    for path, leaf in jax.tree_util.tree_leaves_with_path(state.params)
    if not (frozen and path_name(path).endswith('/kernel'))
  ]
  scanned = config.task == 'language'
  layers = [leaf for name, leaf in trained if scanned and name.startswith('layers/')]
  moments = [kept + outputs, kept + tree_bytes(layers)]
  summed = 0
  if config.train.accumulation > 1:
    size = jnp.dtype(jnp.float32).itemsize
    summed = sum(tree_bytes(leaf) // leaf.dtype.itemsize * size for _, leaf in trained)
  elif config.optimizer.clip_norm:
    moments.append(tree_bytes([leaf for _, leaf in trained]))
  return {
    'parameters': tree_bytes((state.params, state.buffers)),
    'optimiser': tree_bytes(state.opt_state),
    'gradients and activations': summed + max(moments),
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
  parts = ', '.join(f'{name} {shown_bytes(size)}' for name, size in needed.items())
  return (
    f'needs at least {shown_bytes(total)} of memory on each device ({parts}), which has '
    f'{shown_bytes(limit)}'
  )


def sizes(config: Config) -> str:
  """The fields that memory depends on most, with their values."""
  fields = ['model.width', 'data.batch_size', 'train.accumulation']
  if config.task == 'language':
    fields += ['model.layers', 'model.feed_forward_width', 'model.vocab_size']
    fields.append('data.sequence_length')
  else:
    fields += ['model.depth', 'model.input_shape', 'model.outputs']
  value = lambda field: functools.reduce(getattr, field.split('.'), config)
  return ', '.join(f'{field}={value(field)}' for field in fields)


def shown_bytes(size: int) -> str:
  if size < 1e9:
    return f'{size / 1e6:.3g} MB'
  return f'{size / 1e9:,.3g} GB' if size < 1e12 else f'{size / 1e9:,.0f} GB'
