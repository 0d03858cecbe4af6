"""Whose every parameter is: placement on the mesh and weight decay by exact path.

A path is that of a parameter or buffer in the model's variables, as common/paths.py writes
it: 'layers/attention/query/a'. Each kind declares its own parameters in its file, by paths
below its module; here stands only which module lies where. A path that nobody declares is
refused, so that a new parameter cannot be forgotten.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from elas_jax.common.errors import UserError
from elas_jax.common.paths import path_name
from elas_jax.config.config import NetworkConfig
from elas_jax.models.classifier import Network
from elas_jax.models.decoder import Decoder
from elas_jax.systems import kinds
from elas_jax.systems.kinds import Axes, Map
from elas_jax.systems.layers import Owners
from elas_jax.systems.linears.common import merged
from elas_jax.systems.seen import Matrices

MATRIX: Axes = {'': ('in', 'out')}
ROLES = ('in', 'out', 'rank', None)


def owners(model: Any) -> Owners:
  """Path of a module -> owner of what lies below. The longest that fits counts."""
  if isinstance(model, NetworkConfig):
    below = model.architecture.owners(model)
    return {f'network/{path}': owner for path, owner in below.items()}
  V, D = model.vocab_size, model.width
  # A lookup multiplies nothing, but where the table is the head as well.
  embedding = Map(V, D, 'in', times=int(model.tied_head))
  layers = {f'layers/{path}': owner for path, owner in model.stack.owners().items()}
  return layers | {
    'embedding': (MATRIX, embedding),
    'position': (model.position, None),
    'head': (MATRIX, Map(D, V, 'out')),
    'final_norm': (model.norm, None),
  }


def axes(model: Any) -> dict[str, tuple[str | None, ...]]:
  """Path -> the mesh axis that splits each dimension; empty where none does.

  `tensor` splits the side of a linear map that its Map says, fsdp the other. The axis of
  the stacked layers, which comes first, is not among them.
  """
  return {
    path: _placed(roles, linear_map)
    for path, (_, linear_map, roles, _) in _declared(model).items()
  }


def _placed(roles: tuple[str | None, ...], linear_map: Map | None) -> tuple:
  if linear_map is None:
    return (None,) * len(roles)
  axis = dict.fromkeys(('in', 'out'), 'fsdp') | {linear_map.split: 'tensor'}
  # One axis splits one dimension: that of a rank takes fsdp where no other does.
  axis['rank'] = None if 'fsdp' in map(axis.get, roles) else 'fsdp'
  return tuple(map(axis.get, roles))


def no_decay(model: Any) -> set[str]:
  """The paths of parameters that weight decay leaves alone: by their kinds, and biases of
  layers that belong to none."""
  paths = set()
  for path, (owner, _, _, below) in _declared(model).items():
    plain = isinstance(owner, dict)
    if below.endswith('bias') if plain else below in kinds.no_decay(owner):
      paths.add(path)
  return paths


def matrices(model: Any, variables: dict[str, Any]) -> Matrices:
  """Of every linear map, by the path of its module, as systems/seen.py has them.

  Of a map that is no product by one matrix each parameter with two sides of 'in', 'out' and
  'rank' is there by its own path, the other dimensions among its rows.
  """
  table, modules = owners(model), {}
  for part in variables.values():
    for path, leaf in leaves(part).items():
      prefix, _, below, roles = owned(table, path)
      modules.setdefault(prefix, {})[below] = leaf, roles
  found: Matrices = {}
  for prefix, module in modules.items():
    kind, p = table[prefix][0], {name: leaf for name, (leaf, _) in module.items()}
    if kinds.factors(kind):
      found[prefix] = p['a'], p['b']
      continue
    if hasattr(kind, 'merged'):
      found[prefix] = (_as_matrix(merged(kind, p), ('in', 'out'), stacked(prefix)),)
      continue
    sided = {name: x for name, x in module.items() if sum(map(bool, x[1])) > 1}
    for name, (leaf, roles) in sided.items():
      alone = prefix if len(sided) == 1 else f'{prefix}/{name}'
      found[alone] = (_as_matrix(leaf, roles, stacked(prefix)),)
  return found


def _as_matrix(x: jax.Array, roles: tuple[str | None, ...], layers: bool) -> jax.Array:
  """(N,) I, O of any parameter with two sides: its columns are 'out', or 'rank'."""
  side = roles.index('out' if 'out' in roles else 'rank') - len(roles)
  last = jnp.moveaxis(x, side, -1)
  return last.reshape(*last.shape[:layers], -1, last.shape[-1])


def _declared(model: Any) -> dict[str, tuple[Any, Map | None, tuple, str]]:
  """Path -> owner, its map, the roles of the dimensions, and the path as declared."""
  table, declared = owners(model), {}
  for path, dimensions in _dimensions(model).items():
    prefix, owner, below, roles = owned(table, path)
    # Of the layers stacked, and of a convolution, the first dimensions are nobody's.
    own = dimensions - stacked(prefix)
    least = 0 if isinstance(model, NetworkConfig) else own
    _check_roles(path, roles, min(least, own), own)
    declared[path] = owner, table[prefix][1], roles, below
  return declared


def stacked(path: str) -> bool:
  """Whether the parameters there have the axis of the stacked layers."""
  return path.removeprefix('network/').startswith('layers/')


def _check_roles(path: str, roles: tuple[str | None, ...], least: int, most: int) -> None:
  if not least <= len(roles) <= most or not {*roles} <= {*ROLES}:
    raise UserError(
      f'parameter {path!r}: its AXES are {roles}; must say of each of its {most} '
      f'dimensions one of {", ".join(map(repr, ROLES))}'
    )


def owned(table: Owners, path: str) -> tuple[str, Any, str, tuple]:
  """(path of the module, its owner, the path below as declared, the roles there)."""
  parts = path.split('/')
  for count in range(len(parts), 0, -1):
    prefix = '/'.join(parts[:count])
    if prefix not in table:
      continue
    owner = table[prefix][0]
    declared = owner if isinstance(owner, dict) else kinds.axes(owner)
    below = '/'.join(parts[count:])
    if below not in declared:  # the module may be inside of another: see Parts.nested
      below = below.removeprefix(f'{getattr(owner, "nested", "")}/')
    if below in declared:
      return prefix, owner, below, declared[below]
  raise UserError(
    f'parameter {path!r}: no kind declares it; add it to the AXES of the kind whose it is'
  )


def leaves(tree: Any) -> dict[str, Any]:
  flat = jax.tree_util.tree_leaves_with_path(tree)
  return {path_name(path): leaf for path, leaf in flat}


@functools.cache
def _dimensions(model: Any) -> dict[str, int]:
  """Path -> their number, of all parameters and buffers; computes nothing."""
  if isinstance(model, NetworkConfig):
    module, inputs = Network(model), jnp.zeros((1, *model.input_shape))
  else:
    module, inputs = Decoder(model), jnp.zeros((1, 4), jnp.int32)
  variables = jax.eval_shape(module.init, jax.random.key(0), inputs)
  parts = (leaves(variables.get(part, {})) for part in ('params', 'buffers'))
  return {name: leaf.ndim for part in parts for name, leaf in part.items()}
