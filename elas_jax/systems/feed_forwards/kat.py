"""down(F_2(up(F_1(x)))) with group-rational F, of the transformer KAT (arXiv 2409.10594).

F = P / Q, degrees 5 and 4, one for each of `groups` groups of channels; the numerator is
shared by all groups, as in the released code. F_1 starts as the identity and F_2 as swish;
see ops/rational.py. x (B, L, D), up (B, L, F). Up and down are of the model's linear kind.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from elas_jax.common.fields import at_least, divides
from elas_jax.systems.feed_forwards.common import last_map
from elas_jax.systems.feed_forwards.mlp import MLP
from elas_jax.systems.kinds import Map, Parts
from elas_jax.systems.linears.rational import GroupRational


@dataclasses.dataclass(frozen=True)
class KAT:
  groups: int = 8  # of channels, a divisor of D and F

  def check(self, where: str, config: Any) -> None:
    at_least(1, where, self, 'groups')
    for name, width in config.model.input_widths.items():
      divides(f'{where}.groups', self.groups, name, width)

  def make(self, parts: Parts, name: str) -> nn.Module:
    return Module(self, parts, name=name)

  def maps(self, parts: Parts) -> dict[str, Map]:
    return MLP().maps(parts)


class Module(nn.Module):
  kind: KAT
  parts: Parts

  @nn.compact
  def __call__(self, x_BxLxD: jax.Array) -> jax.Array:
    parts, linear = self.parts, self.parts.linear
    first = dataclasses.replace(parts, opening=True)
    rational = lambda preset, name: GroupRational(
      self.kind.groups, preset, param_dtype=parts.param_dtype, name=name
    )
    x_BxLxD = rational('identity', 'rational_1')(x_BxLxD)
    h_BxLxF = linear.make(parts.hidden, first, name='up')(x_BxLxD)
    y_BxLxF = rational('swish', 'rational_2')(h_BxLxF)
    return last_map(self, parts, y_BxLxF)


NO_DECAY = tuple(
  f'rational_{number}/{part}' for number in (1, 2) for part in ('numerator', 'denominator')
)
AXES = dict.fromkeys(NO_DECAY, (None, None))
CASES = (KAT(groups=2),)


def truth(kind: KAT, x: np.ndarray, p: dict, linear: Any) -> np.ndarray:
  h = linear(_rational(x, p['rational_1']), p['up'])
  return linear(_rational(h, p['rational_2']), p['down'])


def _rational(x: np.ndarray, p: dict) -> np.ndarray:
  """Of group g: sum_i a_i x^i / (1 + sum_j |b_gj| |x|^j)."""
  groups = len(p['denominator'])
  y = x.reshape(*x.shape[:-1], groups, -1)
  above = sum(a[None, :, None] * y**i for i, a in enumerate(p['numerator'].T))
  below = sum(
    np.abs(b)[:, None] * np.abs(y) ** j for j, b in enumerate(p['denominator'].T, start=1)
  )
  return (above / (1 + below)).reshape(x.shape)
