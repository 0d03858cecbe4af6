"""Factors multiplied into dense maps (low rank, LoRA 2106.09685, SLTrain 2406.02214).

Every linear map becomes y = x W + bias with the W that its kind's `merged` says, of masked
maps the one with their zeros, which are then trained like the rest; it is formed in float32
and rounded once to model.param_dtype. Kinds without it are no product with one matrix (cola
and lost have a silu between their factors) and are refused. Biases and all else stay; an
optimiser that steps on factors is followed by the one that its `on_dense` names.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from elas_jax.common.errors import UserError
from elas_jax.common.limits import quoted
from elas_jax.systems.converters.common import Given, with_model
from elas_jax.systems.kinds import about, axes, name_of
from elas_jax.systems.linears import LINEARS
from elas_jax.systems.linears.common import merged
from elas_jax.systems.optimizers import OPTIMIZERS


@dataclasses.dataclass(frozen=True)
class Merge:
  equal: ClassVar[bool] = True

  def check(self, where: str, config: Any) -> None:
    linear = config.model.linear
    if not hasattr(linear, 'merged'):
      accepted = quoted(name for name, kind in LINEARS.items() if hasattr(kind, 'merged'))
      raise UserError(
        f'model.linear={name_of(LINEARS, linear)!r}: must be one of {accepted} to be '
        'merged into dense maps'
      )

  def convert(self, given: Given) -> tuple[Any, dict[str, Any]]:
    linear = given.config.model.linear
    dtype = jnp.dtype(given.config.model.param_dtype)
    parts = ('params', 'buffers')
    params, buffers = (flatten_dict(given.variables[part], sep='/') for part in parts)
    own, rounding, count = set(axes(linear)) - {'bias'}, [], 0
    for path in given.linear_maps:
      p = _taken(params, path, own) | _taken(buffers, path, own)
      if p:
        kernel = merged(linear, p)
        rounded = params[f'{path}/kernel'] = kernel.astype(dtype)
        rounding.append(jnp.abs(rounded - kernel).max())
        count += 1
    if dtype != jnp.float32:
      given.say(f'rounded to {dtype.name}: entries of W by at most {max(rounding):.3g}')
    config = with_model(given.config, linear=LINEARS['dense']())
    optimizer = about(config.optimizer, 'on_dense', default=config.optimizer)
    if optimizer is not config.optimizer:
      before, now = (name_of(OPTIMIZERS, x) for x in (config.optimizer, optimizer))
      given.say(f'optimizer={before!r} steps on factors: {now!r} takes its place')
      config = dataclasses.replace(config, optimizer=optimizer)
    trees = (unflatten_dict(part, sep='/') for part in (params, buffers))
    return config, dict(zip(parts, trees))


def _taken(flat: dict[str, jax.Array], path: str, names: set[str]) -> dict[str, Any]:
  """Takes these arrays of a module out."""
  return {name: flat.pop(f'{path}/{name}') for name in names if f'{path}/{name}' in flat}


CASES = (Merge(),)
# No truth of its own: a kind's `merged` is held against that kind's truth.
