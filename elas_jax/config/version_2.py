"""Configs of version 2: before attention stayed inside of a document."""

from typing import Any


def lift(tree: dict[str, Any]) -> dict[str, Any]:
  """A tree of version 2 as one of version 3."""
  if tree.get('task', 'language') != 'language':
    return tree
  return tree | {'data': tree.get('data', {}) | {'document_mask': False}}
