"""(x - mean) / sqrt(variance + epsilon) * scale + bias, row by row (arXiv 1607.06450).

Scale and bias are learnt and start at 1 and 0. Mean and variance in float32.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import numpy as np

from elas_jax.common.fields import above
from elas_jax.systems.kinds import Parts


@dataclasses.dataclass(frozen=True)
class Layer:
  epsilon: float = 1e-5  # added to the variance

  def check(self, where: str, config: Any) -> None:
    above(0, where, self, 'epsilon')

  def make(self, parts: Parts, name: str, train: bool = False) -> nn.Module:
    return nn.LayerNorm(self.epsilon, parts.compute_dtype, parts.param_dtype, name=name)


AXES = {'scale': (None,), 'bias': (None,)}
NO_DECAY = ('scale', 'bias')
CASES = (Layer(), Layer(epsilon=0.1))


def truth(kind: Layer, x: np.ndarray, p: dict) -> np.ndarray:
  centred = x - x.mean(-1, keepdims=True)
  deviation = np.sqrt(x.var(-1, keepdims=True) + kind.epsilon)
  return centred / deviation * p['scale'] + p['bias']
