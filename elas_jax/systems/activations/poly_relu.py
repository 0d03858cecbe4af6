"""Sum over i of a_i max(x, 0)^i, i = 0 .. order, a trained (PolyReLU, arXiv 2411.03884).

The a_i, of each layer its own, start at 1 / order, a_0 at 0, as in the authors' code, which
this was checked against. It contains the squared ReLU: a = (0, 0, 1, 0). To have as many
parameters as a gated feed-forward, an ungated one is 3/2 as wide.
"""

import dataclasses
from typing import Any

import jax
import numpy as np

from elas_jax.common.fields import at_least
from elas_jax.systems.activations.common import Starts, Trained, coefficients


@dataclasses.dataclass(frozen=True)
class PolyReLU(Trained):
  order: int = 3  # the highest power

  def check(self, where: str, config: Any) -> None:
    at_least(1, where, self, 'order')

  def starts(self) -> Starts:
    return {'a': coefficients(self.order)}

  def formula(self, x: jax.Array, a: jax.Array) -> jax.Array:
    positive, y = jax.nn.relu(x), a[self.order]
    for power in reversed(range(self.order)):
      y = y * positive + a[power]
    return y


AXES, NO_DECAY = {'a': (None,)}, ('a',)
CASES = (PolyReLU(), PolyReLU(order=1))


def truth(kind, x, p):
  return sum(a * np.maximum(x, 0) ** power for power, a in enumerate(p['a']))
