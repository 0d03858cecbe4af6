"""No position: a mixer sees order by its causal mask alone (NoPE, arXiv 2305.19466)."""

import dataclasses
from typing import Any

import jax
import numpy as np


@dataclasses.dataclass(frozen=True)
class NoPosition:
  def check(self, where: str, config: Any) -> None:
    """Nothing can be wrong."""

  def angles(self, positions_L: jax.Array, head_size: int) -> None:
    return None

  def rotate(self, x_BxLxHxK: jax.Array, angles: None) -> jax.Array:
    return x_BxLxHxK


CASES = (NoPosition(),)


def truth(kind: NoPosition, x_BxLxHxK: np.ndarray, start: int = 0) -> np.ndarray:
  return x_BxLxHxK
