"""What kinds of positions share: to add nothing and to turn nothing."""

from collections.abc import Callable
from typing import Any

import jax


class Position:
  def make(self, parts: Any, name: str) -> Callable:
    return lambda x_BxLxD, positions: x_BxLxD

  def angles(self, positions: jax.Array, head_size: int) -> Any:
    return None

  def rotate(self, x_BxLxHxK: jax.Array, angles: Any) -> jax.Array:
    return x_BxLxHxK
