"""The group-rational layers of KAT, the Kolmogorov-Arnold transformer (arXiv 2409.10594).

A function of each edge, phi(x) = w F(x), whose F = P / Q is shared by the channels of a
group: so F once for every channel, and then a dense map. See ops/rational.py.
"""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from elas_jax.common.errors import UserError
from elas_jax.common.limits import quoted
from elas_jax.ops import rational as ops


class GroupRational(nn.Module):
  """F_g(x) entrywise, the channels in `groups` contiguous groups; starts as `preset`.

  6 coefficients of the numerator, shared as in the released code or 6 of each group, and
  4 of the denominator of each group.
  """

  groups: int = 8
  preset: str = 'swish'  # a name of ops/rational.py:PRESETS
  numerator: Literal['shared', 'per_group'] = 'shared'
  denominator: str = 'absolute_terms'  # a name of ops/rational.py:DENOMINATORS
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    _check(self, x.shape[-1])
    a, b = ops.preset(self.preset, self.denominator)
    rows = {'shared': 1, 'per_group': self.groups}[self.numerator]
    start = lambda values: (
      lambda _, shape, dtype: jnp.tile(jnp.array([values], dtype), (shape[0], 1))
    )
    a_Nx6 = self.param('numerator', start(a), (rows, len(a)), self.param_dtype)
    b_Gx4 = self.param('denominator', start(b), (self.groups, len(b)), self.param_dtype)
    return ops.rational(x, a_Nx6, b_Gx4, self.denominator)


class GroupRationalDense(nn.Module):
  """The GR-KAN layer, F(x) W + bias, from (..., I) to (..., features).

  W ~ N(0, alpha / I) with alpha = 1 / E[F(x)^2], so that x ~ N(0, 1) keeps its variance.
  The released model draws W so and then overwrites it (standard deviation 0.02).
  """

  features: int
  groups: int = 8
  preset: str = 'swish'
  numerator: Literal['shared', 'per_group'] = 'shared'
  denominator: str = 'absolute_terms'
  use_bias: bool = True
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    y = GroupRational(
      self.groups,
      self.preset,
      self.numerator,
      self.denominator,
      self.param_dtype,
      name='rational',
    )(x)
    alpha = ops.gain(self.preset, self.denominator)
    init = nn.initializers.variance_scaling(alpha, 'fan_in', 'normal')
    return nn.Dense(
      self.features,
      self.use_bias,
      x.dtype,
      self.param_dtype,
      kernel_init=init,
      name='dense',
    )(y)


def _check(layer: GroupRational, width: int) -> None:
  choices = {
    'preset': ops.PRESETS,
    'numerator': ('shared', 'per_group'),
    'denominator': ops.DENOMINATORS,
  }
  for field, names in choices.items():
    value = getattr(layer, field)
    if value not in names:
      raise UserError(f'{field}={value!r}: must be one of {quoted(names)}')
  if layer.groups < 1 or width % layer.groups:
    divisors = [d for d in range(1, width + 1) if width % d == 0]
    raise UserError(
      f'groups={layer.groups}: must divide the width {width} of the input; '
      f'accepted: {", ".join(map(str, divisors))}'
    )
