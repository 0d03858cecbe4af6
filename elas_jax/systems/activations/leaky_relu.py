"""x above 0, 0.01 x below (leaky ReLU, Maas et al. 2013)."""

import dataclasses

import jax
import numpy as np

from elas_jax.systems.activations.common import Plain


@dataclasses.dataclass(frozen=True)
class LeakyRelu(Plain):
  function = staticmethod(jax.nn.leaky_relu)


CASES = (LeakyRelu(),)


def truth(kind, x, p):
  return np.where(x > 0, x, 0.01 * x)
