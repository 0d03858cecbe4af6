"""No position: a mixer sees order by its causal mask alone (NoPE, arXiv 2305.19466)."""

import dataclasses

import numpy as np

from elas_jax.systems.positions.common import Position


@dataclasses.dataclass(frozen=True)
class NoPosition(Position):
  pass


CASES = (NoPosition(),)


def truth(kind: NoPosition, x_BxLxHxK: np.ndarray, start: int = 0) -> np.ndarray:
  return x_BxLxHxK
