"""x sigmoid(beta x), from linear to ReLU as beta grows (Swish, arXiv 1710.05941).

With beta 0 it is x / 2, with 1 SiLU, with 1.7 near to GELU, and beyond 8 near to ReLU: the
family of ReLU Strikes Back (arXiv 2310.04564). beta may be trained, one for each layer.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from elas_jax.common.fields import at_least
from elas_jax.systems import kinds
from elas_jax.systems.activations.common import Starts, Trained, constant


@dataclasses.dataclass(frozen=True)
class Swish(Trained):
  beta: float = 1.0  # or where it starts
  trained: bool = False  # whether beta is a parameter

  def check(self, where: str, config: Any) -> None:
    at_least(0, where, self, 'beta')

  def starts(self) -> Starts:
    return {'beta': constant(self.beta)}

  def formula(self, x: jax.Array, beta: jax.Array | float) -> jax.Array:
    return x * jax.nn.sigmoid(beta * x)

  def make(
    self, parts: Any, name: str | None
  ) -> nn.Module | Callable[[jax.Array], jax.Array]:
    if self.trained:
      return super().make(parts, name)
    return lambda x: self.formula(x, self.beta)


def AXES(kind: Swish) -> kinds.Axes:
  return {'beta': ()} if kind.trained else {}


def NO_DECAY(kind: Swish) -> tuple[str, ...]:
  return ('beta',) if kind.trained else ()


CASES = (Swish(), Swish(trained=True), Swish(beta=8.0))


def truth(kind, x, p):
  return x / (1 + np.exp(-p.get('beta', kind.beta) * x))
