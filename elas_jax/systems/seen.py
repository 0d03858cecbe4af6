"""One forward pass, as objectives and measures see it."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from elas_jax.systems.sown import Sown


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

  @property
  def count(self) -> jax.Array:
    """Units, at least 1."""
    return jnp.maximum(self.sums['count'], 1.0)

  def weights_of(self, rows: int) -> jax.Array:
    """The weights (rows,) of what has that many rows, such as patches of images."""
    flat = self.weights.reshape(-1)
    return jnp.repeat(flat, rows // flat.size)
