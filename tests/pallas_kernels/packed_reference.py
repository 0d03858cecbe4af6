"""What a matrix is packed into, for the tests of kernels that pack along either axis."""

import jax
import numpy as np

from pallas_kernels.two_four import reference


def packed_reference(y: jax.Array, axis: int, rule: str, activation: str | None):
  """(Values, metadata) of bf16 (T, F) as reference.compress packs it."""
  compress = jax.jit(reference.compress, static_argnums=(1, 2, 3))
  packed = compress(y, axis, rule, activation, None, None)
  return np.asarray(packed.values), np.asarray(packed.metadata)
