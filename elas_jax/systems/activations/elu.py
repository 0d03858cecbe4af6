"""x above 0, alpha (e^x - 1) below (ELU, arXiv 1511.07289)."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from elas_jax.common.fields import at_least
from elas_jax.systems.activations.common import Plain


@dataclasses.dataclass(frozen=True)
class Elu(Plain):
  alpha: float = 1.0  # -alpha is where it saturates

  def check(self, where: str, config: Any) -> None:
    at_least(0, where, self, 'alpha')

  def make(self, parts: Any, name: str | None) -> Callable[[jax.Array], jax.Array]:
    return functools.partial(jax.nn.elu, alpha=self.alpha)


CASES = (Elu(), Elu(alpha=0.5))


def truth(kind, x, p):
  return np.where(x > 0, x, kind.alpha * np.expm1(np.minimum(x, 0)))
