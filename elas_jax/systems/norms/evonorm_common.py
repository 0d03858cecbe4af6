"""What both EvoNorms share, which are a norm and its activation in one (arXiv 2004.02967).

The axes of a variance over space are those between the first and the last: (H, W) of images
(B, H, W, C), L of a transformer's rows (B, L, D), none of rows (B, D); and none in a causal
decoder, where a position would see those after it.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from elas_jax.common.errors import UserError
from elas_jax.systems.activations import ACTIVATIONS
from elas_jax.systems.kinds import Parts, name_of


def check_alone(where: str, name: str, config: Any) -> None:
  """Refuses a second activation behind the norm of a network's layers."""
  activation = getattr(config.model, 'activation', None)
  if activation is not None and not isinstance(activation, ACTIVATIONS['none']):
    raise UserError(
      f'model.activation={name_of(ACTIVATIONS, activation)!r}: must be '
      f"'none' with {where}={name!r}, which is an activation as well"
    )


def space(x: jax.Array, parts: Parts) -> tuple[int, ...]:
  return () if parts.causal else tuple(range(1, x.ndim - 1))


def scale_bias_v(
  module: nn.Module, x: jax.Array
) -> tuple[Callable[[jax.Array], jax.Array], jax.Array]:
  """(y -> y scale + bias in x's dtype, v), by channel; they start at 1, bias at 0."""
  ones, zeros = nn.initializers.ones, nn.initializers.zeros
  starts, shape = {'scale': ones, 'bias': zeros, 'v': ones}, x.shape[-1:]
  scale, bias, v = (
    by_channel(module.param(name, start, shape, module.parts.param_dtype), x)
    for name, start in starts.items()
  )
  return lambda y: (y * scale + bias).astype(x.dtype), v


def by_channel(v_C: jax.Array, x: jax.Array) -> jax.Array:
  """As a factor of x, in float32."""
  return v_C.astype(jnp.float32).reshape((1,) * (x.ndim - 1) + (-1,))


PARAMETERS = ('scale', 'bias', 'v')
