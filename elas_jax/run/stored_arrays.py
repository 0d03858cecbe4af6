"""Arrays of checkpoints of older versions, which lay on other paths."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import NamedSharding, PartitionSpec

from elas_jax.config.version_1 import Moved


def as_stored(abstract: Any, moved: Moved | None) -> Any:
  """What must be read for arrays like these: whole on every device where they moved."""
  if moved is None:
    return abstract

  def of_tree(tree):
    found = {}
    for path, leaf in flatten_dict(tree, sep='/').items():
      if not hasattr(leaf, 'shape'):  # moments that there are none of: of frozen kernels
        continue
      places = moved(path, leaf.shape)
      if places == [(path, leaf.shape)]:
        found[path] = leaf
        continue
      whole = NamedSharding(leaf.sharding.mesh, PartitionSpec())
      for old, shape in places:
        found[old] = jax.ShapeDtypeStruct(shape, leaf.dtype, sharding=whole)
    return unflatten_dict(found, sep='/')

  return _of_trees(of_tree, abstract)


def as_today(loaded: Any, abstract: Any, moved: Moved | None) -> Any:
  """The arrays that were read, in the shapes and places of `abstract`."""
  if moved is None:
    return loaded

  def of_tree(like, old):
    old, found = flatten_dict(old, sep='/'), {}
    for path, leaf in flatten_dict(like, sep='/').items():
      if not hasattr(leaf, 'shape'):
        found[path] = leaf
        continue
      arrays = [old[place] for place, _ in moved(path, leaf.shape)]
      found[path] = jnp.stack(arrays).reshape(leaf.shape).astype(leaf.dtype)
    return unflatten_dict(found, sep='/')

  lift = lambda loaded: _of_trees(of_tree, abstract, loaded)
  shardings = jax.tree.map(lambda x: x.sharding, abstract)
  return jax.jit(lift, out_shardings=shardings)(loaded)


def _of_trees(change: Callable[..., Any], *trees: Any) -> Any:
  """`change` of all of a network's arrays by path: parameters, buffers, moments."""
  of_network = lambda x: isinstance(x, dict) and 'network' in x
  first, *others = (jax.tree.leaves(tree, is_leaf=of_network) for tree in trees)
  structure = jax.tree.structure(trees[0], is_leaf=of_network)
  changed = [
    change(*parts) if of_network(parts[0]) else parts[-1] for parts in zip(first, *others)
  ]
  return jax.tree.unflatten(structure, changed)
