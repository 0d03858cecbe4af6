"""s (x sigmoid(beta x) - gamma) + (1 - s) GELU(x), s trained (SG-Blend, arXiv 2505.23942).

s = sigmoid(alpha); alpha, beta and gamma are trained, of each layer its own. Checked
against the authors' code: alpha and gamma start at 0, and GELU is x sigmoid(1.702 x). Ours:
beta starts at 1, where the code draws it and clips it to 0.1 .. 10; nothing is clipped.
"""

import dataclasses

import jax
import numpy as np

from elas_jax.systems.activations.common import Starts, Trained, constant

GELU = 1.702  # beta of the Swish that is near to GELU


@dataclasses.dataclass(frozen=True)
class SGBlend(Trained):
  alpha: float = 0.0  # where it starts: 0, both count half
  beta: float = 1.0  # where it starts; ours
  gamma: float = 0.0  # where it starts

  def starts(self) -> Starts:
    return {name: constant(getattr(self, name)) for name in NO_DECAY}

  def formula(
    self, x: jax.Array, alpha: jax.Array, beta: jax.Array, gamma: jax.Array
  ) -> jax.Array:
    share, swish = jax.nn.sigmoid(alpha), x * jax.nn.sigmoid(beta * x) - gamma
    return share * swish + (1 - share) * x * jax.nn.sigmoid(GELU * x)


NO_DECAY = ('alpha', 'beta', 'gamma')
AXES = dict.fromkeys(NO_DECAY, ())
CASES = (SGBlend(), SGBlend(alpha=2.0, beta=3.0, gamma=0.1))


def truth(kind, x, p):
  share = 1 / (1 + np.exp(-p['alpha']))
  swish = x / (1 + np.exp(-p['beta'] * x)) - p['gamma']
  return share * swish + (1 - share) * x / (1 + np.exp(-GELU * x))
