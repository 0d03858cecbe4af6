"""Share of experts that a chunk of tokens has on, softly, of BlockFFN (arXiv 2507.08771).

  p_ti = A1_ti / (sum_i A1_ti + 1e-5)
  P_ci = 1 - exp(sum over the tokens t of chunk c of log(1 - p_ti + 1e-5))

with A1 (T, E) >= 0 the router's scores after their ReLU; the mean of P over experts, chunks
and layers. A chunk is so many neighbours of a row, whatever documents they are of. Checked
against the authors' code. Ours: tokens that do not count are left out of the sum, where
theirs have p = 0, and so are chunks of nothing else; and p is of A1 itself, not of what the
norm makes of it, which differs where all scores are near 0.

The coefficient follows the loss by a factor, 1 in the first hold_steps. Then after every
so many steps r is the mean of the loss in these by that in those before, and

  the factor goes by r, or max(growth, r) where r > 1, but not above `most`,

on a straight line over the next so many: by steps of the optimiser, where theirs are of
micro-batches. The state: the factor before this line and what the line multiplies it by,
the mean of the last window, and the sum of this one.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from elas_jax.common.errors import UserError
from elas_jax.common.fields import at_least, divides
from elas_jax.systems.kinds import phase
from elas_jax.systems.objectives.common import Objective, State, by_rows

SMALL = 1e-5  # beside sums and inside of the logarithm


@dataclasses.dataclass(frozen=True)
class ChunkSparsity(Objective):
  coefficient: float = 5e-2  # at the start; 1e-1 of the 2.8B model
  chunk: int = 64  # tokens, a divisor of a row's
  hold_steps: int = phase(1000)  # before the factor first changes
  every: int = phase(100)  # steps between changes of the factor; 0: it stays 1
  growth: float = 1.025  # of the factor, at least, where the loss has grown
  most: float = 4.0  # what the factor never exceeds

  sown: ClassVar[tuple[str, ...]] = ('experts',)

  def check(self, where: str, config: Any) -> None:
    super().check(where, config)
    at_least(1, where, self, 'chunk growth most')
    name = 'data.sequence_length' if config.traits.text else 'the positions of a row'
    divides(f'{where}.chunk', self.chunk, name, config.length)
    at_least(0, where, self, 'every')
    if self.hold_steps < 2 * self.every:
      raise UserError(
        f'{where}.hold_steps={self.hold_steps}: must be at least {2 * self.every}, two '
        f'windows of {where}.every={self.every} to compare'
      )

  def loss(self, seen: Any) -> jax.Array:
    means = []
    for a1_NxBxLxE in by_rows(seen, 'experts'):
      N, rows, length, E = a1_NxBxLxE.shape
      a1_NxCxSxE = a1_NxBxLxE.astype(jnp.float32).reshape(N, -1, self.chunk, E)
      p_NxCxSxE = a1_NxCxSxE / (a1_NxCxSxE.sum(-1, keepdims=True) + SMALL)
      weights_CxS = seen.counted(rows * length).reshape(-1, self.chunk)
      off_NxCxSxE = jnp.log(1 - p_NxCxSxE + SMALL) * weights_CxS[None, :, :, None]
      on_NxC = (1 - jnp.exp(off_NxCxSxE.sum(2))).mean(-1)
      counts_C = weights_CxS.max(1)
      sums_N = (on_NxC * counts_C[None]).sum(1)
      means.append(sums_N / jnp.maximum(counts_C.sum(), 1))
    return jnp.concatenate(means).mean()

  def state(self) -> State:
    start = {'factor': 1.0, 'ratio': 1.0, 'before': 0.0, 'sum': 0.0}
    return {name: jnp.float32(x) for name, x in start.items()} if self.every else {}

  def next_state(self, state: State, value: jax.Array, step: jax.Array) -> State:
    summed = state | {'sum': state['sum'] + value}
    mean, factor = summed['sum'] / self.every, state['factor'] * state['ratio']
    compares = (step + 1 >= self.hold_steps) & (mean > 0) & (state['before'] > 0)
    r = mean / jnp.where(compares, state['before'], 1)
    r = jnp.minimum(jnp.where(r > 1, jnp.maximum(r, self.growth), r), self.most / factor)
    ended = {
      'factor': factor,
      'ratio': jnp.where(compares, r, 1),
      'before': mean,
      'sum': jnp.zeros_like(mean),
    }
    ends = (step + 1) % self.every == 0
    return jax.tree.map(lambda now, then: jnp.where(ends, then, now), summed, ended)

  def coefficient_at(
    self, step: jax.Array, steps: int, state: State | None = None
  ) -> jax.Array:
    start = super().coefficient_at(step, steps)
    if not state:
      return start
    line = (step % self.every + 1) / self.every
    return start * state['factor'] * (1 + (state['ratio'] - 1) * line)


CASES = (
  ChunkSparsity(chunk=4, hold_steps=6, every=3),
  ChunkSparsity(chunk=8, every=0),
)


def truth(kind: ChunkSparsity, seen: Any) -> float:
  """Token by token: what is left of the chance that an expert is off."""
  means = []
  for layer in (layer for layers in by_rows(seen, 'experts') for layer in layers):
    shares = []
    for a1_LxE, weights in zip(layer, seen.weights):
      for start in range(0, len(a1_LxE), kind.chunk):
        off, places = 1.0, range(start, start + kind.chunk)
        for a1_E in (a1_LxE[t] for t in places if weights[t]):
          off = off * (1 - a1_E / (a1_E.sum() + SMALL) + SMALL)
        if any(weights[t] for t in places):
          shares.append(1 - off)
    means.append(np.mean(shares))
  return np.mean(means)
