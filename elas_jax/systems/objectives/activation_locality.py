"""Cross-entropy of which experts the next token has on, of BlockFFN (arXiv 2507.08771).

  mean over pairs t, t + 1 and experts of log(1 + e^z_t) - sigmoid(z_(t+1)) z_t

with z = alpha A0, A0 (T, E) the router's scores; then the mean over layers. Small where
neighbours have the same experts on. The gradient reaches both tokens of a pair, as in the
authors' code, against which this was checked. A pair counts where both tokens do and both
are of one document, where documents are told apart (data.document_mask).
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from elas_jax.common.fields import above
from elas_jax.systems.objectives.common import Objective, by_rows


@dataclasses.dataclass(frozen=True)
class ActivationLocality(Objective):
  coefficient: float = 2e-3  # of the 0.1B, 0.5B and 1.2B models; 1e-3 of that of 0.8B
  alpha: float = 100.0  # how steep the sigmoid of a score is

  sown: ClassVar[tuple[str, ...]] = ('router',)

  def check(self, where: str, config: Any) -> None:
    super().check(where, config)
    above(0, where, self, 'alpha')

  def loss(self, seen: Any) -> jax.Array:
    means = []
    for a0_NxBxLxE in by_rows(seen, 'router'):
      z_NxBxLxE = self.alpha * a0_NxBxLxE.astype(jnp.float32)
      now, then = z_NxBxLxE[:, :, :-1], z_NxBxLxE[:, :, 1:]
      losses_NxBxP = (jax.nn.softplus(now) - jax.nn.sigmoid(then) * now).mean(-1)
      pairs_1xBxP = _pairs(seen, z_NxBxLxE.shape[2])[None]
      sums_N = (losses_NxBxP * pairs_1xBxP).sum((1, 2))
      means.append(sums_N / jnp.maximum(pairs_1xBxP.sum(), 1))
    return jnp.concatenate(means).mean()


def _pairs(seen: Any, length: int) -> jax.Array:
  """(B, L - 1): 1 where a position and the next count together."""
  rows = len(seen.weights)
  weights_BxL = seen.counted(rows * length).reshape(rows, length)
  pairs_BxP = weights_BxL[:, :-1] * weights_BxL[:, 1:]
  if 'segments' in seen.batch:
    segments_BxL = seen.batch['segments']
    pairs_BxP = pairs_BxP * (segments_BxL[:, :-1] == segments_BxL[:, 1:])
  return pairs_BxP


CASES = (ActivationLocality(alpha=5.0), ActivationLocality())


def truth(kind: ActivationLocality, seen: Any) -> float:
  """Pair by pair, -q log p - (1 - q) log(1 - p)."""
  means = []
  for layer in (layer for layers in by_rows(seen, 'router') for layer in layers):
    losses = []
    for z_LxE, weights, segments in zip(
      kind.alpha * layer, seen.weights, seen.batch['segments']
    ):
      for t in range(len(z_LxE) - 1):
        if weights[t] and weights[t + 1] and segments[t] == segments[t + 1]:
          q = np.exp(-np.logaddexp(0, -z_LxE[t + 1]))
          z = z_LxE[t]
          losses.append(q * np.logaddexp(0, -z) + (1 - q) * np.logaddexp(0, z))
    means.append(np.mean(losses))
  return np.mean(means)
