"""x + table[position], a learned vector of each position (arXiv 1706.03762; GPT-2, ViT).

x (B, L, D), 'table' (S, D), normal of standard deviation 0.02, S the number of positions.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from elas_jax.common.errors import UserError
from elas_jax.common.fields import at_least
from elas_jax.common.limits import check_array
from elas_jax.systems.kinds import Parts
from elas_jax.systems.positions.common import Position


@dataclasses.dataclass(frozen=True)
class Learned(Position):
  length: int = 1024  # S, as in GPT-2; 0, of images: as many as there are patches

  def check(self, where: str, config: Any) -> None:
    at_least(0, where, self, 'length')
    most, needed = self.limit(config.model.stack.parts), config.length
    check_array((f'{where}.length', most), ('model.width', config.model.width))
    if most < needed:
      raise UserError(
        f'{where}.length={self.length}: must be at least {needed}, the positions of a row'
      )

  def make(self, parts: Parts, name: str) -> nn.Module:
    return Module(self, parts, name=name)

  def limit(self, parts: Parts) -> int:
    return self.length or parts.length


class Module(nn.Module):
  kind: Learned
  parts: Parts

  @nn.compact
  def __call__(self, x_BxLxD: jax.Array, positions: jax.Array) -> jax.Array:
    shape = (self.kind.limit(self.parts), self.parts.width)
    init = nn.initializers.normal(0.02)
    table_SxD = self.param('table', init, shape, self.parts.param_dtype)
    added = table_SxD[positions].astype(x_BxLxD.dtype)
    return x_BxLxD + (added if added.ndim == 3 else added[None])


AXES = {'table': (None, None)}
CASES = (Learned(length=16),)


def truth(kind: Learned, x_BxLxHxK: np.ndarray, start: int = 0) -> np.ndarray:
  return x_BxLxHxK


def added(kind: Learned, x_BxLxD: np.ndarray, p: dict, start: int = 0) -> np.ndarray:
  return x_BxLxD + p['table'][start : start + x_BxLxD.shape[1]]
