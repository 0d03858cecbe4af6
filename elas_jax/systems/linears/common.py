"""What linear maps share: the start of a plain kernel, biases, what a rank may be."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from elas_jax.common.errors import UserError
from elas_jax.common.fields import at_least
from elas_jax.ops.linear import kaiming_uniform
from elas_jax.systems.kinds import Parts


def plain_start(parts: Parts) -> jax.nn.initializers.Initializer:
  """How a dense kernel (I, O) is drawn."""
  if parts.init_std is not None:
    return nn.initializers.normal(parts.init_std)
  return {
    'lecun': kaiming_uniform,
    'lecun_normal': nn.initializers.lecun_normal(),
    'he': nn.initializers.he_normal(),
  }[parts.init]


def convolution_start(parts: Parts) -> jax.nn.initializers.Initializer:
  """How the kernel (h, w, I, O) of a convolution is drawn."""
  lecun = parts.init == 'lecun_normal'
  return nn.initializers.lecun_normal() if lecun else nn.initializers.he_normal()


def bias_of(module: nn.Module) -> jax.Array | None:
  """Declares the bias (O,) of a linear map, after its other parameters, if it has one."""
  if not module.parts.use_bias:
    return None
  zeros, shape = nn.initializers.zeros, (module.features,)
  return module.param('bias', zeros, shape, module.parts.param_dtype)


def plus(y: jax.Array, bias_O: jax.Array | None) -> jax.Array:
  if bias_O is None:
    return y
  return y + bias_O.astype(y.dtype).reshape((1,) * (y.ndim - 1) + (-1,))


def merged(kind: Any, p: dict[str, jax.Array]) -> jax.Array:
  """The kind's `merged` of its parameters and buffers, whatever their dtype, in float32."""
  wide = lambda x: x.astype(jnp.float32) if jnp.issubdtype(x.dtype, jnp.floating) else x
  with jax.default_matmul_precision('highest'):
    return kind.merged({name: wide(x) for name, x in p.items()})


def check_rank(where: str, kind: Any, config: Any) -> None:
  """Refuses a rank beyond the full one of the narrowest map."""
  at_least(1, where, kind, 'rank')
  widths = config.model.widths
  full = min(widths.values())
  if kind.rank > full:
    *others, last = widths
    which = {0: 'the', 1: 'the smaller of'}.get(len(others), 'the smallest of')
    names = f'{", ".join(others)} and {last}' if others else last
    raise UserError(f'{where}.rank={kind.rank}: must be at most {full}, {which} {names}')


def check_svd(where: str, kind: Any, config: Any) -> None:
  """Refuses a rank beyond the full one of its narrowest map, whose SVD has no more."""
  stack = config.model.stack
  owners = stack.owners() if stack else {}
  own = {path: one for path, (owner, one) in owners.items() if one and owner == kind}
  sides = {path: min(one.inputs, one.outputs) for path, one in own.items()}
  if sides and kind.rank > min(sides.values()):
    name = min(sides, key=sides.get)
    raise UserError(
      f'{where}.rank={kind.rank}: must be at most {sides[name]} to start as an SVD, the '
      f'width of the map {name!r}'
    )


def check_share(where: str, kind: Any) -> None:
  if not 0 < kind.sparse_share < 1:
    raise UserError(
      f'{where}.sparse_share={kind.sparse_share!r}: must be above 0 and below 1'
    )
