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
    weights: float32, (B, L) or (B,): above 0 where there is a unit, a token or an example;
      1 there, but of pairs of answers the share of its tokens.
    sums: over the units, by name: `loss`, `count` and what else the task says.
    sown: what was asked for, see sown.py.
    changed: the buffers after the pass.
    matrices: () -> those of all linear maps; see models/layout.py.
    again: path -> thresholds (F,), of stacked layers (N, F) -> the same pass once more, in
      which feed-forwards go on without what is not above them; see sown.py:cut.
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
  again: Callable[[dict[str, jax.Array]], 'Seen']

  @property
  def count(self) -> jax.Array:
    """Units, at least 1."""
    return jnp.maximum(self.sums['count'], 1.0)

  def layers(self, name: str) -> jax.Array:
    """What was sown under a name in all layers, (N, T, F), where their shapes are one."""
    found = list(self.sown[name].values())
    return in_order([x.reshape(-1, *x.shape[-2:]) for x in found])

  def each(self, name: str, function: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """`function` of what was sown under a name in each layer, (T, F), in their order.

    Shapes may differ from layer to layer where what the function gives has one shape.
    """
    found = self.sown[name].values()
    of_each = [jax.vmap(function)(x) if x.ndim == 3 else function(x)[None] for x in found]
    return in_order(of_each)

  def weights_of(self, rows: int) -> jax.Array:
    """The weights (rows,) of what has that many rows, such as patches of images."""
    flat = self.weights.reshape(-1)
    return jnp.repeat(flat, rows // flat.size)

  def counted(self, rows: int) -> jax.Array:
    """The same as 1 where there is a unit, and 0."""
    return (self.weights_of(rows) > 0).astype(jnp.float32)


def in_order(of_each: list[jax.Array]) -> jax.Array:
  """(N / cycle, ...) of each layer of a cycle -> (N, ...), as the layers follow.

  Stacked layers go through their cycle of blocks again and again.
  """
  stacked = jnp.stack(of_each, 1)
  return stacked.reshape(-1, *stacked.shape[2:])
