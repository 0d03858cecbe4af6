"""ELU scaled to keep mean 0 and variance 1 from layer to layer (SELU, arXiv 1706.02515).

  y = lambda x above 0, lambda alpha (e^x - 1) below

for weights of mean 0 and variance 1 / I, model.init='lecun_normal'. With alpha dropout, in
training alone, a unit is kept with probability q = 1 - dropout and otherwise takes the
lowest value, l = -lambda alpha; then a y + b keeps mean and variance:

  a = (q + l^2 q (1 - q))^(-1/2),  b = -a (1 - q) l
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from elas_jax.common.errors import UserError
from elas_jax.systems.activations.common import Plain

# The fixed point of section 1.1 of the paper, to double precision.
ALPHA, SCALE = 1.6732632423543772, 1.0507009873554805
LOWEST = -SCALE * ALPHA


@dataclasses.dataclass(frozen=True)
class Selu(Plain):
  dropout: float = 0.0  # share of units that training drops; the paper's 0.05 or 0.1

  function = staticmethod(jax.nn.selu)

  def check(self, where: str, config: Any) -> None:
    if not 0 <= self.dropout < 1:
      raise UserError(f'{where}.dropout={self.dropout!r}: must be at least 0 and below 1')

  def make(self, parts: Any, name: str | None) -> Callable[[jax.Array], jax.Array]:
    if self.dropout and parts.train:
      return Module(self, name=name)
    return type(self).function


class Module(nn.Module):
  """As it is in training: draws from the rng 'noise'."""

  kind: Selu

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    kept = 1 - self.kind.dropout
    is_kept = jax.random.bernoulli(self.make_rng('noise'), kept, x.shape)
    y, (scale, shift) = jnp.where(is_kept, jax.nn.selu(x), LOWEST), affine(kept)
    return scale * y + shift


def affine(kept: float) -> tuple[float, float]:
  """(a, b)."""
  scale = (kept + LOWEST**2 * kept * (1 - kept)) ** -0.5
  return scale, -scale * (1 - kept) * LOWEST


CASES = (Selu(), Selu(dropout=0.1))


def truth(kind, x, p):
  return SCALE * np.where(x > 0, x, ALPHA * np.expm1(np.minimum(x, 0)))
