"""a_0 + sum over i of a_i x^i / RMS(x^i), i = 1 .. order, a trained (arXiv 2411.03884).

PolyNorm of PolyCom. RMS(y) = sqrt(mean(y^2) + epsilon) over the last axis, that of
features, as the authors' code has it, which this was checked against; the paper writes
L2 norms. So an entry depends on all features of its row, at its own position. The a_i, of
each layer its own, start at 1 / order, a_0 at 0. Not for the functions of single numbers of
Kolmogorov-Arnold layers.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elas_jax.common.fields import above, at_least
from elas_jax.systems.activations.common import Starts, Trained, coefficients


@dataclasses.dataclass(frozen=True)
class PolyNorm(Trained):
  order: int = 3  # the highest power
  epsilon: float = 1e-6  # added to the mean square of each power

  def check(self, where: str, config: Any) -> None:
    at_least(1, where, self, 'order')
    above(0, where, self, 'epsilon')

  def starts(self) -> Starts:
    return {'a': coefficients(self.order)}

  def mixes_features(self) -> bool:
    return True

  def formula(self, x: jax.Array, a: jax.Array) -> jax.Array:
    y, power = a[0], 1.0
    for number in range(1, self.order + 1):
      power = power * x
      square = jnp.square(power).mean(-1, keepdims=True)
      y = y + a[number] * power * jax.lax.rsqrt(square + self.epsilon)
    return y


AXES, NO_DECAY = {'a': (None,)}, ('a',)
CASES = (PolyNorm(), PolyNorm(order=2, epsilon=0.1))


def truth(kind, x, p):
  norm = lambda y: y / np.sqrt((y**2).mean(-1, keepdims=True) + kind.epsilon)
  return p['a'][0] + sum(a * norm(x**i) for i, a in enumerate(p['a'][1:], start=1))
