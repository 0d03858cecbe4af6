"""Who lives where: the device mesh and the placement of every array.

Three axes. `data` splits the batch; `fsdp` splits the batch and the parameters, which
are gathered where they are used; `tensor` splits each layer's inner width (heads and F).
"""

import re
import socket
import time
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from elas_jax.common.errors import UserError
from elas_jax.common.paths import path_name
from elas_jax.config.checks import check_devices
from elas_jax.config.config import Config
from elas_jax.models import layout

AXES = ('data', 'fsdp', 'tensor')
LARGEST_PORT = 2**16 - 1
MOST_PROCESSES = 2**31 - 1  # what JAX can count
WAIT_SECONDS = 300  # for process 0 to start


def make_mesh(config: Config, devices: Sequence[jax.Device] | None = None) -> Mesh:
  """The mesh of the config over these devices (all, unless given)."""
  devices = devices or jax.devices()
  sizes = check_devices(config, len(devices))
  own = sum(device.process_index == jax.process_index() for device in devices)
  if own % sizes[2]:
    raise UserError(
      f'mesh.tensor={sizes[2]}: must divide the {own} devices of a process, whose rows of '
      'the batch it shares'
    )
  return jax.make_mesh(sizes, AXES, (AxisType.Auto,) * len(AXES), devices=devices)


def join_processes(spec: str) -> None:
  """Makes this process one of a run on several machines; before anything else of JAX.

  Args:
    spec: 'auto' where the cluster says who is who (SLURM, Open MPI, Kubernetes, TPU
      pods), else 'HOST:PORT,INDEX,COUNT': where process 0 listens, and which of how
      many processes this is.

  Raises:
    UserError: it is neither, there is no such cluster or host, or the port is taken.
  """
  if spec == 'auto':
    try:
      jax.distributed.initialize()
    except (ValueError, KeyError) as error:  # of what the cluster's variables hold
      raise UserError(
        "--processes='auto': no cluster says who is who (SLURM, Open MPI, Kubernetes and "
        f'TPU pods do): {error}; give HOST:PORT,INDEX,COUNT'
      ) from error
    return
  host, port, index, count = _parsed(spec)
  try:
    _check_address(host, port, listens=index == 0)
  except (OSError, UnicodeError) as error:  # the latter of labels that no name can have
    reason = getattr(error, 'strerror', None) or error
    raise UserError(f'--processes={spec!r}: {host}:{port}: {reason}') from error
  jax.distributed.initialize(f'{host}:{port}', count, index)


def _parsed(spec: str) -> tuple[str, int, int, int]:
  """(host, port, index, count) of HOST:PORT,INDEX,COUNT."""
  parts = re.fullmatch(
    r'(\[[0-9A-Fa-f:.]+\]|[\w.-]+):([0-9]{1,5}),([0-9]{1,10}),([0-9]{1,10})', spec
  )
  if not parts:
    raise UserError(f"--processes={spec!r}: must be 'auto' or HOST:PORT,INDEX,COUNT")
  port, index, count = map(int, parts.groups()[1:])
  if not 1 <= port <= LARGEST_PORT:
    raise UserError(
      f'--processes={spec!r}: PORT={port}: must be between 1 and {LARGEST_PORT}'
    )
  if not 1 <= count <= MOST_PROCESSES:
    raise UserError(
      f'--processes={spec!r}: COUNT={count}: must be between 1 and {MOST_PROCESSES}'
    )
  if index >= count:
    raise UserError(f'--processes={spec!r}: INDEX={index}: must be below COUNT={count}')
  return parts[1], port, index, count


def _check_address(host: str, port: int, listens: bool) -> None:
  """Raises OSError where JAX would end in a segmentation fault or an abort.

  No host of that name, a port that process 0 cannot listen at, or, for the others, nobody
  listening there after a while.
  """
  host = host.strip('[]')
  socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
  if listens:
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    socket.create_server(('', port), family=family, dualstack_ipv6=both).close()
    return
  end = time.monotonic() + WAIT_SECONDS
  while True:
    try:
      socket.create_connection((host, port), timeout=WAIT_SECONDS).close()
      return
    except OSError:
      if time.monotonic() > end:
        raise
    time.sleep(0.2)


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Rows of a batch over data and fsdp."""
  return NamedSharding(mesh, PartitionSpec(('data', 'fsdp')))


def state_shardings(config: Config, mesh: Mesh, abstract_state: Any) -> Any:
  """A sharding for every array of a train state (or of parameters alone).

  An array has the axes of the parameter in whose path its own path ends, as those of the
  optimiser's moments do; scalars live everywhere. A dimension that its axis does not
  divide stays whole. The leading axis N of the stacked layers is never split.

  Raises:
    UserError: an array that is not a scalar belongs to no parameter.
  """
  axes_of = layout.axes(config.model)

  def sharding(path, leaf):
    axes = _axes(path_name(path), axes_of) if leaf.ndim else ()
    axes = (None,) * (leaf.ndim - len(axes)) + tuple(axes)
    fits = [
      axis if axis and size % mesh.shape[axis] == 0 else None
      for axis, size in zip(axes, leaf.shape)
    ]
    return NamedSharding(mesh, PartitionSpec(*fits))

  return jax.tree_util.tree_map_with_path(sharding, abstract_state)


def _axes(path: str, axes_of: dict[str, tuple[str | None, ...]]) -> tuple[str | None, ...]:
  parts = path.split('/')
  for start in range(len(parts)):
    if (name := '/'.join(parts[start:])) in axes_of:
      return axes_of[name]
  raise UserError(f'{path}: no kind says how this array is placed; add it to its AXES')
