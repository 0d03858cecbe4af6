"""x where x >= threshold, else 0 (FATReLU, Kurtz et al. 2020; ProSparse, arXiv 2402.13516).

More zeros than ReLU's, at a jump. ProSparse takes it after training, with 0.01.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elas_jax.common.fields import at_least
from elas_jax.systems.activations.common import Plain


@dataclasses.dataclass(frozen=True)
class FATReLU(Plain):
  threshold: float = 0.01  # ProSparse's for LLaMA 2, 7B and 13B

  def check(self, where: str, config: Any) -> None:
    at_least(0, where, self, 'threshold')

  def make(self, parts: Any, name: str | None) -> Callable[[jax.Array], jax.Array]:
    return functools.partial(_above, self.threshold)

  def zeros(self) -> bool:
    return True


def _above(threshold: float, x: jax.Array) -> jax.Array:
  return jnp.where(x >= threshold, x, 0)


CASES = (FATReLU(), FATReLU(threshold=0.5))


def truth(kind, x, p):
  return np.where(x >= kind.threshold, x, 0)
