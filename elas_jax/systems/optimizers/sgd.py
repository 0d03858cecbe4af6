"""Stochastic gradient descent with momentum, as in PyTorch and ResNet (arXiv 1512.03385).

  m = momentum m + g + weight_decay p;  p -= lr(step) m

Weight decay is that of the loss: it passes the momentum, without a factor 1 - momentum.
It is times the factor that the parameter's path has.
"""

import dataclasses
from typing import Any

import jax
import numpy as np
import optax

from elas_jax.systems.kinds import Training
from elas_jax.systems.optimizers.common import Common, check_averages


@dataclasses.dataclass(frozen=True)
class Sgd(Common):
  learning_rate: float = 0.1  # the peak; ResNet's on CIFAR-10, as are the others
  momentum: float = 0.9  # factor of the sum of all gradients before
  weight_decay: float = 1e-4  # added to the gradients, times p

  def check(self, where: str, config: Any) -> None:
    super().check(where, config)
    check_averages(where, self, 'momentum')
    self.check_decay(where)

  def build(self, training: Training) -> optax.GradientTransformation:
    trace = optax.trace(self.momentum)
    return training.descend(trace, self.weight_decay, decay_first=True)


CASES = (Sgd(), Sgd(momentum=0.5, weight_decay=0.5))


def truth(kind: Sgd, params: Any, gradients: list, rates: list[float]) -> Any:
  m = jax.tree.map(np.zeros_like, params)
  for gradient, rate in zip(gradients, rates):
    move = lambda m, g, p: kind.momentum * m + g + kind.weight_decay * p
    m = jax.tree.map(move, m, gradient(params), params)
    params = jax.tree.map(lambda p, m, rate=rate: p - rate * m, params, m)
  return params
