"""Parameters by path: 'layers/attention/query/a' and regexes that match such paths."""

import re
from collections.abc import Sequence
from typing import Any

import jax

from elas_jax.common.errors import UserError


def path_name(path: Sequence[Any]) -> str:
  """A key path of jax.tree_util as 'a/b/c'."""
  return jax.tree_util.keystr(path, simple=True, separator='/')


def names(tree: Any) -> list[str]:
  """The path names of a tree's leaves, in the order of jax.tree.leaves."""
  return [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]


def match(tree: Any, rules: Sequence[tuple[str, Any]], field: str) -> Any:
  """The tree with each leaf replaced by the value of the first rule that finds its path.

  Rules are pairs (regex, value), searched in the path name. A leaf that no rule matches
  is an error that names `field`, so that a new parameter cannot be forgotten.
  """

  def value(path, _):
    name = path_name(path)
    for regex, value in rules:
      if re.search(regex, name):
        return value
    raise UserError(f'{field}: no rule matches the parameter {name!r}; add one')

  return jax.tree_util.tree_map_with_path(value, tree)
