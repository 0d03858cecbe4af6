"""Memory of this machine and its devices, and of arrays."""

import math
import os
import pathlib
from typing import Any

import jax

from elas_jax.common.errors import UserError

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


def shown_bytes(size: int) -> str:
  if size < 1e9:
    return f'{size / 1e6:.3g} MB'
  return f'{size / 1e9:,.3g} GB' if size < 1e12 else f'{size / 1e9:,.0f} GB'
