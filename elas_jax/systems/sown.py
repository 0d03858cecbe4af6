"""What layers give away of what passes through them, by name, to those who ask for it.

A layer says `sow(self, 'activation', y)`; an objective, a measure or a converter that
wants it has the name in its `sown`, and finds the arrays by the paths of the modules,
stacked over the layers where these are. Where nobody asks, nothing is computed or kept.

  name         of                what
  activation   feed-forwards     y (T, F), what enters the last map; before it is pruned
  router       BlockFFN          A0 (T, E), the router's scores of the experts
  experts      BlockFFN          A1 (T, E) >= 0, the same after a ReLU: 0 where one is off
  inputs       B-spline layers   x (P, I), float32, where their splines are evaluated
  keys_values  mha to xsmqa      [k, v] (T, 2 J K), before k is normalised and rotated
  residual     transformers      x (T, D), what each layer gives
  thresholds   feed-forwards     (F,), those of this pass, see `cut`

Networks that are no transformers have an `activation` y (T, D) of each layer, unless theirs
is none; T are rows, or positions of images.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

PREFIX = 'sown_'  # of the collection of a name: each is kept or not on its own
THRESHOLDS = 'thresholds'  # the collection of what enters a pass, see `cut`
VALUE = 'x'  # the variable of a module that gives away one thing
# For nn.scan: everything sown is stacked, as parameters and buffers are.
EVERY_NAME = nn.DenyList(('params', 'buffers'))

Sown = dict[str, dict[str, jax.Array]]  # name -> path of the module -> what it sowed


def sow(
  module: nn.Module,
  name: str,
  x: jax.Array | Callable[[], jax.Array],
  part: str = VALUE,
) -> None:
  """Gives x away, if somebody asked for it; a function computes it only then.

  A module that gives away several things of one name says whose each is, by `part`.
  """
  collection = PREFIX + name
  if module.is_mutable_collection(collection) and not module.is_initializing():
    x = x() if callable(x) else x
    module.sow(collection, part, x, lambda _, new: new, lambda: None)


def cut(module: nn.Module, y: jax.Array) -> jax.Array:
  """What goes on of y (..., F) to the last map: what is not too small in this pass.

  Zero where |y| is at or below the thresholds (F,) that the pass was given for this module,
  see systems/seen.py:Seen.again. In any other pass y itself, and nothing is computed.
  """
  thresholds_F = thresholds_of(module, y.shape[-1])
  return y if thresholds_F is None else above(y, thresholds_F)


def thresholds_of(module: nn.Module, features: int) -> jax.Array | None:
  """Those of this pass, None if it has none; for layers that `cut` does not fit into."""
  if not module.has_variable(THRESHOLDS, VALUE):
    sow(module, THRESHOLDS, lambda: jnp.full((features,), -1.0))
    return None
  thresholds_F = module.get_variable(THRESHOLDS, VALUE)
  sow(module, THRESHOLDS, thresholds_F)
  return thresholds_F


def above(y: jax.Array, thresholds_F: jax.Array) -> jax.Array:
  """The entries of y (..., F) above the thresholds in magnitude, and zeros."""
  return jnp.where(jnp.abs(y) > thresholds_F.reshape((1,) * (y.ndim - 1) + (-1,)), y, 0)


def as_thresholds(by_path: Mapping[str, jax.Array]) -> dict[str, Any]:
  """The collection that gives the module at each path its thresholds."""
  collection: dict[str, Any] = {}
  for path, thresholds in by_path.items():
    node = collection
    for key in path.split('/'):
      node = node.setdefault(key, {})
    node[VALUE] = thresholds
  return {THRESHOLDS: collection}


def collections(names: Sequence[str]) -> list[str]:
  """What `apply` must have as `mutable` for these names to be kept."""
  return [PREFIX + name for name in names]


def gathered(changed: Mapping[str, Any], names: Sequence[str]) -> Sown:
  """Of the collections that `apply` has changed; a name that nobody sowed is empty."""
  found = {}
  for name in names:
    leaves = jax.tree_util.tree_leaves_with_path(changed.get(PREFIX + name, {}))
    of = {_path([key.key for key in path]): x for path, x in leaves}
    found[name] = {path: of[path] for path in sorted(of, key=_by_number)}
  return found


def asked(readers: Sequence[Any]) -> tuple[str, ...]:
  """The names that these objectives or measures read."""
  names = [name for one in readers for name in getattr(one, 'sown', ())]
  return tuple(dict.fromkeys(names))


def _path(keys: list[str]) -> str:
  return '/'.join(keys[:-1] if keys[-1] == VALUE else keys)


def _by_number(path: str) -> list[Any]:
  """block_10 comes after block_2."""
  return [int(x) if x.isdigit() else x for x in re.split(r'(\d+)', path)]
