"""max(x, 0)^2 (squared ReLU, Primer, arXiv 2109.08668)."""

import dataclasses

import numpy as np

from elas_jax.ops.activation import squared_relu
from elas_jax.systems.activations.common import Plain


@dataclasses.dataclass(frozen=True)
class Relu2(Plain):
  function = staticmethod(squared_relu)

  def zeros(self) -> bool:
    return True


CASES = (Relu2(),)


def truth(kind, x, p):
  return np.maximum(x, 0) ** 2
