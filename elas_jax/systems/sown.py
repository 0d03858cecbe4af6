"""What layers give away of what passes through them, by name, to those who ask for it.

A layer says `sow(self, 'activation', y)`; an objective, a measure or a converter that
wants it has the name in its `sown`, and finds the arrays by the paths of the modules,
stacked over the layers where these are. Where nobody asks, nothing is computed or kept.

  name         of                what
  activation   feed-forwards     y (T, F), what enters the last map; before it is pruned
  inputs       B-spline layers   x (P, I), float32, where their splines are evaluated
  keys_values  mha to xsmqa      [k, v] (T, 2 J K), before k is normalised and rotated
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax

PREFIX = 'sown_'  # of the collection of a name: each is kept or not on its own
# For nn.scan: everything sown is stacked, as parameters and buffers are.
EVERY_NAME = nn.DenyList(('params', 'buffers'))

Sown = dict[str, dict[str, jax.Array]]  # name -> path of the module -> what it sowed


def sow(module: nn.Module, name: str, x: jax.Array | Callable[[], jax.Array]) -> None:
  """Gives x away, if somebody asked for it; a function computes it only then."""
  collection = PREFIX + name
  if module.is_mutable_collection(collection) and not module.is_initializing():
    x = x() if callable(x) else x
    module.sow(collection, 'x', x, lambda _, new: new, lambda: None)


def collections(names: Sequence[str]) -> list[str]:
  """What `apply` must have as `mutable` for these names to be kept."""
  return [PREFIX + name for name in names]


def gathered(changed: Mapping[str, Any], names: Sequence[str]) -> Sown:
  """Of the collections that `apply` has changed; a name that nobody sowed is empty."""
  found = {}
  for name in names:
    leaves = jax.tree_util.tree_leaves_with_path(changed.get(PREFIX + name, {}))
    of = {'/'.join(key.key for key in path[:-1]): x for path, x in leaves}
    found[name] = {path: of[path] for path in sorted(of, key=_by_number)}
  return found


def asked(readers: Sequence[Any]) -> tuple[str, ...]:
  """The names that these objectives or measures read."""
  names = [name for one in readers for name in getattr(one, 'sown', ())]
  return tuple(dict.fromkeys(names))


def _by_number(path: str) -> list[Any]:
  """block_10 comes after block_2."""
  return [int(x) if x.isdigit() else x for x in re.split(r'(\d+)', path)]
