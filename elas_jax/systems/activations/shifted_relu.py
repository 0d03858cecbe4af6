"""max(x - shift, 0), sparser than ReLU (ReLU Strikes Back, arXiv 2310.04564)."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from elas_jax.systems.activations.common import Plain


@dataclasses.dataclass(frozen=True)
class ShiftedReLU(Plain):
  shift: float = 0.1  # as ProSparse (arXiv 2402.13516) compares itself with it

  def make(self, parts: Any, name: str | None) -> Callable[[jax.Array], jax.Array]:
    return functools.partial(_shifted, self.shift)

  def zeros(self) -> bool:
    return True


def _shifted(shift: float, x: jax.Array) -> jax.Array:
  return jax.nn.relu(x - shift)


CASES = (ShiftedReLU(), ShiftedReLU(shift=1.0))


def truth(kind, x, p):
  return np.maximum(x - kind.shift, 0)
