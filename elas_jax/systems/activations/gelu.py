"""x Phi(x), Phi the standard normal distribution function (GELU, arXiv 1606.08415)."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from elas_jax.systems.activations.common import Plain


@dataclasses.dataclass(frozen=True)
class Gelu(Plain):
  approximate: bool = True  # by tanh, the second formula of the paper

  def make(self, parts: Any, name: str | None) -> Callable[[jax.Array], jax.Array]:
    return functools.partial(jax.nn.gelu, approximate=self.approximate)


CASES = (Gelu(), Gelu(approximate=False))


def truth(kind, x, p):
  if kind.approximate:
    return x * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3))) / 2
  return x * (1 + np.vectorize(math.erf)(x / 2**0.5)) / 2
