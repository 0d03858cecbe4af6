"""y = F(x) W + bias, the GR-KAN layer of KAT, groupwise rational F (arXiv 2409.10594).

x (..., I); F = P / Q entrywise, the same for the channels of a group: 'rational/numerator'
(1, 6), shared as in the released code, or (G, 6), 'rational/denominator' (G, 4); then
'dense/kernel' W (I, O) and, with parts.use_bias, 'dense/bias' (O,). A function of each
edge, phi(x) = w F(x): so F once for every channel, and then a dense map. See
ops/rational.py.

F starts as the identity in the first map of a feed-forward's two and as swish elsewhere.
W ~ N(0, alpha / I) with alpha = 1 / E[F(x)^2], so that x ~ N(0, 1) keeps its variance,
whatever parts.init_std is: the released model draws W so and then overwrites it (standard
deviation 0.02).
"""

import dataclasses
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from elas_jax.common.fields import at_least, divides
from elas_jax.ops import rational as ops
from elas_jax.systems.kinds import Parts


@dataclasses.dataclass(frozen=True)
class Rational:
  groups: int = 8  # G, a divisor of the widths of all inputs
  numerator: Literal['shared', 'per_group'] = 'shared'  # shared as in the released code
  denominator: Literal['absolute_terms', 'absolute_sum'] = 'absolute_terms'  # or the text's

  def check(self, where: str, config: Any) -> None:
    at_least(1, where, self, 'groups')
    for name, width in config.model.input_widths.items():
      divides(f'{where}.groups', self.groups, name, width)

  def make(self, features: int, parts: Parts, name: str) -> nn.Module:
    return Module(features, self, parts, name=name)


class GroupRational(nn.Module):
  """F_g(x) entrywise, the channels in `groups` contiguous groups; starts as `preset`.

  6 coefficients of the numerator, shared as in the released code or 6 of each group, and
  4 of the denominator of each group.
  """

  groups: int
  preset: str  # a name of ops/rational.py:PRESETS
  numerator: str = 'shared'
  denominator: str = 'absolute_terms'  # a name of ops/rational.py:DENOMINATORS
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    a, b = ops.preset(self.preset, self.denominator)
    rows = {'shared': 1, 'per_group': self.groups}[self.numerator]
    start = lambda values: (
      lambda _, shape, dtype: jnp.tile(jnp.array([values], dtype), (shape[0], 1))
    )
    a_Nx6 = self.param('numerator', start(a), (rows, len(a)), self.param_dtype)
    b_Gx4 = self.param('denominator', start(b), (self.groups, len(b)), self.param_dtype)
    return ops.rational(x, a_Nx6, b_Gx4, self.denominator)


class Module(nn.Module):
  features: int
  kind: Rational
  parts: Parts

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    kind, dtype = self.kind, self.parts.param_dtype
    preset = 'identity' if self.parts.opening else 'swish'
    y = GroupRational(
      kind.groups, preset, kind.numerator, kind.denominator, dtype, name='rational'
    )(x)
    alpha = ops.gain(preset, kind.denominator)
    return nn.Dense(
      self.features,
      self.parts.use_bias,
      x.dtype,
      dtype,
      kernel_init=nn.initializers.variance_scaling(alpha, 'fan_in', 'normal'),
      name='dense',
    )(y)


AXES = {
  'rational/numerator': (None, None),
  'rational/denominator': (None, None),
  'dense/kernel': ('in', 'out'),
  'dense/bias': (None,),
}
NO_DECAY = ('rational/numerator', 'rational/denominator', 'dense/bias')
MATRICES = ('dense/kernel',)
CASES = (Rational(groups=2), Rational(4, 'per_group', 'absolute_sum'))


def truth(kind: Rational, x: np.ndarray, p: dict) -> np.ndarray:
  a_Nx6, b_Gx4 = p['rational']['numerator'], p['rational']['denominator']
  f = np.empty_like(x)
  for channel in range(x.shape[-1]):
    group = channel // (x.shape[-1] // kind.groups)
    a, b, v = a_Nx6[group % len(a_Nx6)], b_Gx4[group], x[..., channel]
    numerator = sum(a[i] * v**i for i in range(6))
    if kind.denominator == 'absolute_terms':
      total = sum(abs(b[j - 1] * v**j) for j in range(1, 5))
    else:
      total = abs(sum(b[j - 1] * v**j for j in range(1, 5)))
    f[..., channel] = numerator / (1 + total)
  return f @ p['dense']['kernel'] + p['dense'].get('bias', 0)
