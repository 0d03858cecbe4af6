"""x / (1 + e^-x) (SiLU or swish, arXiv 1702.03118)."""

import dataclasses

import jax
import numpy as np

from elas_jax.ops.activation import swiglu
from elas_jax.systems.activations.common import Plain


@dataclasses.dataclass(frozen=True)
class Silu(Plain):
  function = staticmethod(jax.nn.silu)

  def gate(self, gate: jax.Array, up: jax.Array) -> jax.Array:
    """SwiGLU, with a gradient of its own that keeps only these two arrays."""
    return swiglu(gate, up)


CASES = (Silu(),)


def truth(kind, x, p):
  return x / (1 + np.exp(-x))
