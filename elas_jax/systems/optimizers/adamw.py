"""Adam with weight decay that does not pass the moments (AdamW, arXiv 1711.05101).

  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2
  p -= lr(step) (m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + epsilon) + weight_decay p)

for step t from 1. Weight decay is times the factor that the parameter's path has.
"""

import dataclasses
from typing import Any

import jax
import numpy as np
import optax

from elas_jax.common.fields import above
from elas_jax.systems.kinds import Training
from elas_jax.systems.optimizers.common import Common, check_averages


@dataclasses.dataclass(frozen=True)
class Adamw(Common):
  b1: float = 0.9  # of the first moment
  b2: float = 0.999  # of the second moment; 0.95 is usual in language models
  epsilon: float = 1e-8  # added to the root of the second moment, after its correction
  weight_decay: float = 0.01  # times the learning rate; PyTorch's, the paper has none

  def check(self, where: str, config: Any) -> None:
    super().check(where, config)
    check_averages(where, self, 'b1 b2')
    above(0, where, self, 'epsilon')
    self.check_decay(where)

  def build(self, training: Training) -> optax.GradientTransformation:
    adam = optax.scale_by_adam(self.b1, self.b2, self.epsilon)
    return training.descend(adam, self.weight_decay)


# The second: epsilon and decay so large that they show.
CASES = (Adamw(), Adamw(b1=0.8, b2=0.9, epsilon=0.1, weight_decay=0.5))


def truth(kind: Adamw, params: Any, gradients: list, rates: list[float]) -> Any:
  m = v = jax.tree.map(np.zeros_like, params)
  for t, (gradient, rate) in enumerate(zip(gradients, rates), 1):
    g = gradient(params)
    m = jax.tree.map(lambda m, g: kind.b1 * m + (1 - kind.b1) * g, m, g)
    v = jax.tree.map(lambda v, g: kind.b2 * v + (1 - kind.b2) * g**2, v, g)

    def step(p, m, v, t=t, rate=rate):
      mean, square = m / (1 - kind.b1**t), v / (1 - kind.b2**t)
      direction = mean / (np.sqrt(square) + kind.epsilon)
      return p - rate * (direction + kind.weight_decay * p)

    params = jax.tree.map(step, params, m, v)
  return params
