"""Whose every parameter is: placement on the mesh, weight decay and FLOPs by exact path.

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
from elas_jax.models.classifier import Network
from elas_jax.models.decoder import Decoder
from elas_jax.systems import kinds
from elas_jax.systems.kinds import Axes, Map, about
from elas_jax.systems.seen import Matrices

# A kind, or of what belongs to none the axes themselves; and the map whose they are.
Owner = tuple[Any, Map | None]
MATRIX: Axes = {'': ('in', 'out')}
ROLES = ('in', 'out', 'rank', None)


def owners(model: Any) -> dict[str, Owner]:
  """Path of a module -> owner of what lies below. The longest that fits counts."""
  if not hasattr(model, 'architecture'):
    return _owners_of_decoder(model)
  below = model.architecture.owners(model)
  return {f'network/{path}': (owner, None) for path, owner in below.items()}


def _owners_of_decoder(model: Any) -> dict[str, Owner]:
  parts, norm, (V, D) = model.parts, (model.norm, None), (model.vocab_size, model.width)
  found: dict[str, Owner] = {
    'embedding': (MATRIX, Map(V, D, 'in')),
    'head': (MATRIX, Map(D, V, 'out')),
    'final_norm': norm,
    'layers/attention_norm': norm,
    'layers/feed_forward_norm': norm,
  }
  for name in ('attention', 'feed_forward'):
    kind, where = getattr(model, name), f'layers/{name}'
    found[where] = kind, None
    for inner, owner in about(kind, 'inner', parts, default={}).items():
      found[f'{where}/{inner}'] = owner, None
    for inner, linear_map in kind.maps(parts).items():
      found[f'{where}/{inner}'] = model.linear, linear_map
  return found


def axes(model: Any) -> dict[str, tuple[str | None, ...]]:
  """Path -> the mesh axis that splits each dimension; empty where none does.

  `tensor` splits the side of a linear map that its Map says, fsdp the other; classifiers
  and regressors are small, so that every device has all of them. The axis of the stacked
  layers, which comes first, is not among them.
  """
  whole = hasattr(model, 'architecture')
  return {
    path: () if whole else _placed(roles, linear_map)
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


def flops(model: Any, params: Any, length: int) -> float:
  """Model FLOPs of forward and backward of a decoder for one token.

  In the convention of PaLM (arXiv 2204.02311, appendix B): 6 per entry of every matrix that
  multiplies activations, a tied embedding once, as the head, and what a mixer says of
  itself. Kinds count their own; recomputation under remat does not count, nor does 2:4
  lower it: this is what the model needs, not what the hardware does.
  """
  shapes: dict[str, dict[str, tuple[int, ...]]] = {}
  table = owners(model)
  for path, leaf in _leaves(params).items():
    prefix, owner, below, _ = _owned(table, path)
    shape = leaf.shape[1:] if prefix.startswith('layers/') else leaf.shape
    shapes.setdefault(prefix, {})[below] = shape
  total = 6.0 * model.width * model.vocab_size  # the head
  for prefix, found in shapes.items():
    owner, layers = table[prefix][0], model.layers if prefix.startswith('layers/') else 1
    # A mixer's own are in what it says of itself.
    if not isinstance(owner, dict) and owner is not model.attention:
      total += layers * kinds.flops(owner, found)
  return total + model.layers * model.attention.flops(model.parts, length)


def matrices(model: Any, variables: dict[str, Any]) -> Matrices:
  """Of every linear map, by the path of its module, as systems/seen.py has them.

  Of a map that is no product by one matrix each parameter with two sides of 'in', 'out' and
  'rank' is there by its own path, the other dimensions among its rows.
  """
  table, modules = owners(model), {}
  for part in variables.values():
    for path, leaf in _leaves(part).items():
      prefix, _, below, roles = _owned(table, path)
      modules.setdefault(prefix, {})[below] = leaf, roles
  found: Matrices = {}
  for prefix, leaves in modules.items():
    kind, p = table[prefix][0], {name: leaf for name, (leaf, _) in leaves.items()}
    if hasattr(kind, 'matrix'):
      stacked = prefix.startswith('layers/')
      found[prefix] = ((jax.vmap(kind.matrix) if stacked else kind.matrix)(p),)
      continue
    if kinds.factors(kind):
      found[prefix] = p['a'], p['b']
      continue
    sided = {name: x for name, x in leaves.items() if sum(map(bool, x[1])) > 1}
    for name, (leaf, roles) in sided.items():
      alone = prefix if len(sided) == 1 else f'{prefix}/{name}'
      found[alone] = (_as_matrix(leaf, roles, prefix.startswith('layers/')),)
  return found


def _as_matrix(x: jax.Array, roles: tuple[str | None, ...], stacked: bool) -> jax.Array:
  """(N,) I, O of any parameter with two sides: its columns are 'out', or 'rank'."""
  side = roles.index('out' if 'out' in roles else 'rank') - len(roles)
  last = jnp.moveaxis(x, side, -1)
  return last.reshape(*last.shape[:stacked], -1, last.shape[-1])


def _declared(model: Any) -> dict[str, tuple[Any, Map | None, tuple, str]]:
  """Path -> owner, its map, the roles of the dimensions, and the path as declared."""
  table, declared = owners(model), {}
  for path, dimensions in _dimensions(model).items():
    prefix, owner, below, roles = _owned(table, path)
    # Of the layers stacked, and of a convolution, the first dimensions are nobody's.
    least = 0 if hasattr(model, 'architecture') else dimensions
    own = dimensions - prefix.startswith('layers/')
    _check_roles(path, roles, min(least, own), own)
    declared[path] = owner, table[prefix][1], roles, below
  return declared


def _check_roles(path: str, roles: tuple[str | None, ...], least: int, most: int) -> None:
  if not least <= len(roles) <= most or not {*roles} <= {*ROLES}:
    raise UserError(
      f'parameter {path!r}: its AXES are {roles}; must say of each of its {most} '
      f'dimensions one of {", ".join(map(repr, ROLES))}'
    )


def _owned(table: dict[str, Owner], path: str) -> tuple[str, Any, str, tuple]:
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


def _leaves(tree: Any) -> dict[str, Any]:
  flat = jax.tree_util.tree_leaves_with_path(tree)
  return {path_name(path): leaf for path, leaf in flat}


@functools.cache
def _dimensions(model: Any) -> dict[str, int]:
  """Path -> their number, of all parameters and buffers; computes nothing."""
  if hasattr(model, 'architecture'):
    module, inputs = Network(model), jnp.zeros((1, *model.input_shape))
  else:
    module, inputs = Decoder(model), jnp.zeros((1, 4), jnp.int32)
  variables = jax.eval_shape(module.init, jax.random.key(0), inputs)
  parts = (_leaves(variables.get(part, {})) for part in ('params', 'buffers'))
  return {name: leaf.ndim for part in parts for name, leaf in part.items()}
