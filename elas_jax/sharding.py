"""Who lives where: the device mesh and the placement of every array by its path.

Three axes. `data` splits the batch; `fsdp` splits the batch and the parameters, which
are gathered where they are used; `tensor` splits each layer's inner width (heads and F).
"""

from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from elas_jax.config import Config
from elas_jax.config_checks import check_devices
from elas_jax.errors import UserError
from elas_jax.optim.groups import match, path_name

AXES = ('data', 'fsdp', 'tensor')

# Axes of an array's dimensions by the end of its path. A first match wins, and every
# parameter must find one. Optimiser moments end in the path of their parameter.
RULES = (
  (r'(^|/)embedding$', ('tensor', 'fsdp')),
  (r'(^|/)head$', ('fsdp', 'tensor')),
  (r'norm/scale$', (None,)),
  (r'(^|/)network/', ()),  # those on rows are small: every device has all of them
  (r'/(values|support|columns|scale|passes)$', (None,)),
  (r'/(output|down)/sparse$', (None, 'fsdp')),
  (r'/sparse$', (None, 'tensor')),
  (r'/(query|key|value|gate|up)/quadratic/kernel_[rgb]$', ('fsdp', 'tensor')),
  (r'/(output|down)/quadratic/kernel_[rgb]$', ('tensor', 'fsdp')),
  (r'/(query|key|value|gate|up)/kan/(.*/)?coefficients$', ('fsdp', None, 'tensor')),
  (r'/(output|down)/kan/(.*/)?coefficients$', ('tensor', None, 'fsdp')),
  # Kernels of KANs and what is one vector or a few numbers of each input.
  (r'/(kan|quadratic|rational_[12])/', ()),
  (r'/(query|key|value|gate|up)/kernel$', ('fsdp', 'tensor')),
  (r'/(query|key|value|gate|up)/a$', ('fsdp', None)),
  (r'/(query|key|value|gate|up)/b$', ('fsdp', 'tensor')),
  (r'/(output|down)/kernel$', ('tensor', 'fsdp')),
  (r'/(output|down)/a$', ('tensor', 'fsdp')),
  (r'/(output|down)/b$', (None, 'fsdp')),
)


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
  """
  if spec == 'auto':
    jax.distributed.initialize()
    return
  match spec.split(','):
    case [address, index, count] if (
      ':' in address and index.isdigit() and count.isdigit() and int(index) < int(count)
    ):
      jax.distributed.initialize(address, int(count), int(index))
    case _:
      raise UserError(f"--processes={spec!r}: must be 'auto' or HOST:PORT,INDEX,COUNT")


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Rows of a batch over data and fsdp."""
  return NamedSharding(mesh, PartitionSpec(('data', 'fsdp')))


def state_shardings(mesh: Mesh, abstract_state: Any) -> Any:
  """A sharding for every array of a train state (or of parameters alone).

  A dimension that its axis does not divide stays whole. Arrays of the stacked layers
  have a leading axis N, which is never split; scalars live everywhere.
  """
  arrays = {
    path_name(path): leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(abstract_state)
  }
  wanted = match(
    {name: leaf for name, leaf in arrays.items() if leaf.ndim}, RULES, 'sharding.RULES'
  )

  def sharding(path, leaf):
    axes = wanted.get(path_name(path), ())
    axes = (None,) * (leaf.ndim - len(axes)) + tuple(axes)
    fits = [
      axis if axis and size % mesh.shape[axis] == 0 else None
      for axis, size in zip(axes, leaf.shape)
    ]
    return NamedSharding(mesh, PartitionSpec(*fits))

  return jax.tree_util.tree_map_with_path(sharding, abstract_state)
