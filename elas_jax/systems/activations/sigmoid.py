"""1 / (1 + e^-x)."""

import dataclasses

import jax
import numpy as np

from elas_jax.systems.activations.common import Plain


@dataclasses.dataclass(frozen=True)
class Sigmoid(Plain):
  function = staticmethod(jax.nn.sigmoid)


CASES = (Sigmoid(),)


def truth(kind, x, p):
  return 1 / (1 + np.exp(-x))
