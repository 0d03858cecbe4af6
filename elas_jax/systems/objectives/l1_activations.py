"""Mean of |y| over a feed-forward's activations y: L1, for sparsity (arXiv 2402.13516).

ProSparse adds lambda * sum over layers of ||y||_1, with y = relu(x W_gate) * (x W_up); its
lambda changes in stages, which are the schedule half_sine_stages. Here the sum is a mean,
over units, layers and the F entries of y, so that the coefficient does not depend on sizes,
and y is of any feed-forward, before it is pruned. In the code that its authors published
with BlockFFN the sum is over the tokens as well, the T of a device's micro-batch, and times
1e-8: lambda there is the coefficient 1e-8 lambda N T F here. That of the 7B model, N = 32
and F = 11008, at its end, 0.2, is 2.9 for each sequence of 4096 in such a batch. The
backward pass needs y of all layers, whatever model.remat is.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from elas_jax.systems.objectives.common import Objective
from elas_jax.systems.schedules.constant import Constant


@dataclasses.dataclass(frozen=True)
class L1Activations(Objective):
  coefficient: float = 0.1  # ours: published ones multiply a sum

  sown: ClassVar[tuple[str, ...]] = ('activation',)

  def loss(self, seen: Any) -> jax.Array:
    means = []
    for y in seen.sown['activation'].values():  # (T, F), or (N, T, F) of stacked layers
      means_T = jnp.abs(y.astype(jnp.float32)).mean(-1).reshape(-1, y.shape[-2]).mean(0)
      weights_T = seen.weights_of(len(means_T))
      means.append((means_T * weights_T).sum() / jnp.maximum(weights_T.sum(), 1))
    return jnp.stack(means).mean()


CASES = (L1Activations(), L1Activations(0.5, Constant(warmup_steps=5)))


def truth(kind: L1Activations, seen: Any) -> float:
  means = []
  for y in seen.sown['activation'].values():
    layers = y.reshape(-1, *y.shape[-2:])
    weights = np.repeat(seen.weights.reshape(-1), layers.shape[1] // seen.weights.size)
    means += [np.average(np.abs(layer).mean(1), weights=weights) for layer in layers]
  return np.mean(means)
