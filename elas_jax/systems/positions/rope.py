"""Pairs of entries turned by position * base^(-2i/K) (RoFormer, arXiv 2104.09864).

  (x_i, x_{i + K/2}) -> (x_i cos - x_{i + K/2} sin, x_{i + K/2} cos + x_i sin)

The half-split pairing of the LLaMA checkpoints on Hugging Face, not the interleaved one of
the paper; the two differ by a fixed permutation of each head's entries.
"""

import dataclasses
from typing import Any

import jax
import numpy as np

from elas_jax.common.fields import above
from elas_jax.ops.attention import rotary_angles, rotate
from elas_jax.systems.positions.common import Position


@dataclasses.dataclass(frozen=True)
class Rope(Position):
  base: float = 10000.0  # the longest wave is 2 pi base^(1 - 2/K) positions

  def check(self, where: str, config: Any) -> None:
    above(0, where, self, 'base')

  def angles(self, positions: jax.Array, head_size: int) -> jax.Array:
    """(..., L, K/2), in float32."""
    return rotary_angles(positions, head_size, self.base)

  def rotate(self, x_BxLxHxK: jax.Array, angles: jax.Array) -> jax.Array:
    return rotate(x_BxLxHxK, angles)

  def pairs(self) -> bool:
    return True


CASES = (Rope(), Rope(base=100.0))


def truth(kind: Rope, x_BxLxHxK: np.ndarray, start: int = 0) -> np.ndarray:
  """As a product of complex numbers with e^(i angle); positions start, start + 1, ..."""
  _, L, _, K = x_BxLxHxK.shape
  half = K // 2
  angles_LxK2 = np.outer(start + np.arange(L), kind.base ** (-2 * np.arange(half) / K))
  pairs = x_BxLxHxK[..., :half] + 1j * x_BxLxHxK[..., half:]
  turned = pairs * np.exp(1j * angles_LxK2)[None, :, None, :]
  return np.concatenate([turned.real, turned.imag], -1)
