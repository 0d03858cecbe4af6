"""Stored configs of older versions: a tree of version n becomes one of version n + 1.

A config.json, the config in a checkpoint and those of recorded runs say their version;
those of before there were versions are of version 0. Lifting never looks at today's
classes, which change: what a version looked like is written down here. So is where its
arrays lay, for the checkpoints of its runs.
"""

from collections.abc import Callable, Mapping
from typing import Any

from elas_jax.common.errors import UserError
from elas_jax.common.limits import shown
from elas_jax.config import version_0, version_1, version_2, version_3

# Of version n, to n + 1.
LIFTS = (version_0.lift, version_1.lift, version_2.lift, version_3.lift)
VERSION = len(LIFTS)


def lifted(tree: Mapping[str, Any], of: str = '') -> dict[str, Any]:
  """A stored tree as one of today's version, without the number.

  Raises:
    UserError: a later version of the code has stored it; `of` is what the line begins with.
  """
  if not isinstance(tree, Mapping):
    raise UserError(f'{of}{shown(tree)}: must be a stored config, a tree of sections')
  tree, version = _of_version(tree, of)
  for number, lift in enumerate(LIFTS[version:], version):
    tree = _lift(tree, number, lift)
  return tree


def moved_arrays(tree: Mapping[str, Any]) -> version_1.Moved | None:
  """Where the arrays of the run of a stored tree are; None: where they are today."""
  tree, version = _of_version(tree, '')
  if version > 1:
    return None
  for number, lift in enumerate(LIFTS[version:1], version):
    tree = _lift(tree, number, lift)
  return version_1.moved_arrays(tree)


def _of_version(tree: Mapping[str, Any], of: str) -> tuple[dict[str, Any], int]:
  tree = dict(tree)
  version = tree.pop('version', 0)
  if type(version) is not int or not 0 <= version <= VERSION:
    raise UserError(
      f'{of}version={shown(version)}: this code reads stored configs of versions 0 to '
      f'{VERSION}'
    )
  return tree, version


def _lift(tree: dict[str, Any], number: int, lift: Callable) -> dict[str, Any]:
  try:
    return lift(tree)
  # What trees of another shape end with: a name or a section that is not there.
  except (KeyError, TypeError, ValueError, AttributeError) as error:
    raise UserError(
      f'the stored config is none of version {number}: {type(error).__name__}: {error}'
    ) from error
