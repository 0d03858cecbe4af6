"""Classifiers and regressors, for classes or values: (B, ...) to (B, outputs).

The architecture, a kind of systems/architectures/, says how layers of the linear kind,
norms and activations follow one another.
"""

from typing import Any

import flax.linen as nn
import jax


class Network(nn.Module):
  """The architecture of the config's section `model`, with its parts."""

  config: Any

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    return self.config.architecture.make(self.config, train, name='network')(x)
