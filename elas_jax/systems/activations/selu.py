"""ELU scaled to keep mean 0 and variance 1 from layer to layer (SELU, arXiv 1706.02515)."""

import dataclasses

import jax
import numpy as np

from elas_jax.systems.activations.common import Plain


@dataclasses.dataclass(frozen=True)
class Selu(Plain):
  function = staticmethod(jax.nn.selu)


CASES = (Selu(),)

# The fixed point of section 1.1 of the paper, to double precision.
ALPHA, SCALE = 1.6732632423543772, 1.0507009873554805


def truth(kind, x, p):
  return SCALE * np.where(x > 0, x, ALPHA * np.expm1(np.minimum(x, 0)))
