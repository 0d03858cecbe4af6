"""max(x, 0) + epsilon x exp(-x^2 / 2), epsilon trained (CRReLU, arXiv 2405.12954).

The correction of ReLU that entropy-based search of activations finds for Gaussian inputs.
One epsilon for each layer, that starts at 0.01.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from elas_jax.systems.activations.common import Starts, Trained, constant


@dataclasses.dataclass(frozen=True)
class CRReLU(Trained):
  start: float = 0.01  # of epsilon

  def starts(self) -> Starts:
    return {'epsilon': constant(self.start)}

  def formula(self, x: jax.Array, epsilon: jax.Array) -> jax.Array:
    return jax.nn.relu(x) + epsilon * x * jnp.exp(-x * x / 2)


AXES, NO_DECAY = {'epsilon': ()}, ('epsilon',)
CASES = (CRReLU(), CRReLU(start=-0.5))


def truth(kind, x, p):
  return np.maximum(x, 0) + p['epsilon'] * x * np.exp(-(x**2) / 2)
