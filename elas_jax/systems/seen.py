"""One forward pass, as objectives and measures see it."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from elas_jax.systems.sown import Sown

# Path of a linear map -> factors (..., I, R), (..., R, O) of which its matrix is the
# product, or the matrix alone; the leading axis is that of stacked layers.
Matrices = dict[str, tuple[jax.Array, ...]]


@dataclasses.dataclass(frozen=True)
class Seen:
  """What went into the network and what came out.

  Attributes:
    config: of the run, at this step.
    params, buffers: before the pass.
    batch: of the rows; see tasks/.
    outputs: float32; logits (B, L, V), or (B, C), or values (B, O).
    weights: float32, (B, L) or (B,): 1 where there is a unit, a token or an example.
    sums: over the units, by name: `loss`, `count` and what else the task says.
    sown: what was asked for, see sown.py.
    changed: the buffers after the pass.
    matrices: () -> those of all linear maps; see models/layout.py.
  """

  config: Any
  params: Any
  buffers: Any
  batch: dict[str, jax.Array]
  outputs: jax.Array
  weights: jax.Array
  sums: dict[str, jax.Array]
  sown: Sown
  changed: Any
  matrices: Callable[[], Matrices]

  @property
  def count(self) -> jax.Array:
    """Units, at least 1."""
    return jnp.maximum(self.sums['count'], 1.0)

  def layers(self, name: str) -> jax.Array:
    """What was sown under a name in all layers, (N, T, F), where their shapes are one."""
    (dimensions,) = {x.ndim for x in self.sown[name].values()}
    # Stacked layers go through their cycle of blocks again and again.
    stacked = jnp.stack(list(self.sown[name].values()), dimensions - 2)
    return stacked.reshape(-1, *stacked.shape[-2:])

  def weights_of(self, rows: int) -> jax.Array:
    """The weights (rows,) of what has that many rows, such as patches of images."""
    flat = self.weights.reshape(-1)
    return jnp.repeat(flat, rows // flat.size)
