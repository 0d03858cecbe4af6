"""From the tree of a config file, or a stored one, to a `Config` that can run."""

from typing import Any

from elas_jax.config.checks import check
from elas_jax.config.config import Config, filled
from elas_jax.config.migrate import lifted


def parse(config: Any) -> Config:
  """The ConfigDict (or nested dict) as a checked `Config`.

  Raises:
    UserError: what cannot run, before anything is compiled or written.
  """
  parsed = filled(config.to_dict() if hasattr(config, 'to_dict') else config)
  check(parsed)
  return parsed


def parse_stored(tree: dict[str, Any]) -> Config:
  """The `Config` of what some version of this code has stored, checked."""
  return parse(lifted(tree))
