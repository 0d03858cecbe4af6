"""log(1 + e^x)."""

import dataclasses

import jax
import numpy as np

from elas_jax.systems.activations.common import Plain


@dataclasses.dataclass(frozen=True)
class Softplus(Plain):
  function = staticmethod(jax.nn.softplus)


CASES = (Softplus(),)


def truth(kind, x, p):
  return np.logaddexp(0, x)
