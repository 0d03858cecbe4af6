"""x / sqrt(mean(x^2) + epsilon) * scale over the last axis (RMSNorm, arXiv 1910.07467).

The scale is learnt and starts at 1. In float32; the result has x's dtype.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from elas_jax.common.fields import above
from elas_jax.ops.norm import rms_norm
from elas_jax.systems.kinds import Parts


@dataclasses.dataclass(frozen=True)
class RMS:
  epsilon: float = 1e-6  # added to the mean square

  def check(self, where: str, config: Any) -> None:
    above(0, where, self, 'epsilon')

  def make(self, parts: Parts, name: str, train: bool = False) -> nn.Module:
    return Module(self, parts, name=name)


class Module(nn.Module):
  kind: RMS
  parts: Parts

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    init = nn.initializers.ones
    scale_D = self.param('scale', init, (x.shape[-1],), self.parts.param_dtype)
    return rms_norm(x, scale_D, self.kind.epsilon)


AXES = {'scale': (None,)}
NO_DECAY = ('scale',)
CASES = (RMS(), RMS(epsilon=0.1))


def truth(kind: RMS, x: np.ndarray, p: dict) -> np.ndarray:
  return x / np.sqrt((x**2).mean(-1, keepdims=True) + kind.epsilon) * p['scale']
