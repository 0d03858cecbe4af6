"""What converters share: the run that they are given, and changes of its config."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from elas_jax.common.errors import UserError
from elas_jax.systems.sown import Sown


@dataclasses.dataclass(frozen=True)
class Given:
  """A trained model and what can be asked of it.

  Attributes:
    config: of the run.
    variables: {'params': ..., 'buffers': ...}, of one of its checkpoints.
    linear_maps: the paths of the modules of kind config.model.linear.
    rows: of the train split, evenly taken, with about so many units (tokens, examples).
      Data are prepared only if they are asked for; a UserError if they cannot be.
    outputs: (config, variables, rows, names=()) -> (outputs, sown): what a model gives in
      float32, and what its layers give away by these names (systems/sown.py).
    start: () -> the variables that the run began with, fresh ones of its seed; a UserError
      if it began with others.
    loss: (config, variables, rows) -> mean loss of the task over their units, in nats where
      it is one of probabilities, as an evaluation has it.
    slopes: (config, variables, rows, along=None) -> gradient of that mean as a step of
      training has it, by the parameters; or the product of its Hessian with `along`, a
      tree as theirs.
    check: refuses a config that cannot run; for those who compute much before they return
      one, since the command asks it only then.
    say: prints a line.
  """

  config: Any
  variables: dict[str, Any]
  linear_maps: tuple[str, ...]
  rows: Callable[[int], dict[str, Any]]
  outputs: Callable[..., tuple[jax.Array, Sown]]
  start: Callable[[], dict[str, Any]]
  loss: Callable[..., float]
  slopes: Callable[..., Any]
  check: Callable[[Any], None]
  say: Callable[[str], None]


def with_model(config: Any, **fields: Any) -> Any:
  """The config with other fields of its section `model`."""
  return dataclasses.replace(config, model=dataclasses.replace(config.model, **fields))


def with_hidden(config: Any, hidden: int, field: str) -> Any:
  """The config whose feed-forwards have that width; `field` asked for it.

  Raises:
    UserError: the model has its widths in multiples of D, and this is none.
  """
  model = config.model
  if hasattr(model, 'feed_forward_width'):
    return with_model(config, feed_forward_width=hidden)
  expansion, rest = divmod(hidden, model.width)
  if rest:
    raise UserError(
      f'{field}: makes a width of {hidden}; must be a multiple of model.width='
      f'{model.width}, by which a vit has its feed-forwards'
    )
  architecture = dataclasses.replace(model.architecture, expansion=expansion)
  return with_model(config, architecture=architecture)


def span(x: jax.Array) -> str:
  return f'{x.min():.4g} to {x.max():.4g}'
