"""Normalisation layers."""

import flax.linen as nn
import jax

from elas_jax.config import ModelConfig
from elas_jax.ops.norm import rms_norm


class RMSNorm(nn.Module):
  """RMSNorm with a learnt scale that starts at 1."""

  config: ModelConfig

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    init = nn.initializers.ones
    scale_D = self.param('scale', init, (x.shape[-1],), self.config.param_dtype)
    return rms_norm(x, scale_D, self.config.norm_epsilon)
