"""Normalisation layers."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from elas_jax.config.config import ModelConfig
from elas_jax.ops.norm import batch_norm, rms_norm


class RMSNorm(nn.Module):
  """RMSNorm with a learnt scale that starts at 1."""

  config: ModelConfig

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    init = nn.initializers.ones
    scale_D = self.param('scale', init, (x.shape[-1],), self.config.param_dtype)
    return rms_norm(x, scale_D, self.config.norm_epsilon)


class BatchNorm(nn.Module):
  """(x - mean) / sqrt(variance + 1e-5) * scale + bias, by channel (arXiv 1502.03167).

  In training over the batch, all devices together; otherwise by running averages, which
  are buffers: 0.9 of the old, 0.1 of the batch. In float32.
  """

  train: bool

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    shape, wide = x.shape[-1:], x.astype(jnp.float32)
    mean = self.variable('buffers', 'mean', jnp.zeros, shape)
    variance = self.variable('buffers', 'variance', jnp.ones, shape)
    scale = self.param('scale', nn.initializers.ones, shape)
    bias = self.param('bias', nn.initializers.zeros, shape)
    now = mean.value, variance.value
    if self.train:
      axes = tuple(range(x.ndim - 1))
      now = wide.mean(axes), wide.var(axes)
      if not self.is_initializing():
        for kept, new in zip((mean, variance), now):
          kept.value = 0.9 * kept.value + 0.1 * new
    return batch_norm(wide, *now, scale, bias, 1e-5).astype(x.dtype)
