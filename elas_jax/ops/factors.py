"""Modules of a parameter tree by the parameters that they hold."""

from collections.abc import Callable
from typing import Any

import jax

FACTORS = ('a', 'b')  # the factors A (..., I, R) and B (..., R, O) of W = A B


def map_modules(names: tuple[str, ...], function: Callable, tree: Any, *rest: Any) -> Any:
  """The tree with new values in every module (a dict) that has all of `names`.

  `function` gets the module of `tree` and those at its place in `rest`, and returns a
  dict of the leaves that change.
  """
  found = lambda node: isinstance(node, dict) and node.keys() >= set(names)
  change = lambda node, *others: node | function(node, *others) if found(node) else node
  return jax.tree.map(change, tree, *rest, is_leaf=found)
