"""(x - mean) / sqrt(variance + epsilon) * scale + bias, by channel (arXiv 1502.03167).

In training over the batch, all devices together; otherwise by running averages, which
are buffers: new = momentum old + (1 - momentum) of the batch. In float32.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from elas_jax.common.fields import above, fraction
from elas_jax.ops.norm import batch_norm
from elas_jax.systems.kinds import Parts


@dataclasses.dataclass(frozen=True)
class Batch:
  epsilon: float = 1e-5  # added to the variance
  momentum: float = 0.9  # share of the old running averages that a batch leaves

  def check(self, where: str, config: Any) -> None:
    above(0, where, self, 'epsilon')
    fraction(where, self, 'momentum')

  def make(self, parts: Parts, name: str, train: bool = False) -> nn.Module:
    return Module(self, train, name=name)

  def mixes_rows(self) -> bool:
    return True


class Module(nn.Module):
  kind: Batch
  train: bool

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    shape, wide, momentum = x.shape[-1:], x.astype(jnp.float32), self.kind.momentum
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
          kept.value = momentum * kept.value + (1 - momentum) * new
    return batch_norm(wide, *now, scale, bias, self.kind.epsilon).astype(x.dtype)


AXES = {'scale': (None,), 'bias': (None,), 'mean': (None,), 'variance': (None,)}
NO_DECAY = ('scale', 'bias')
CASES = (Batch(), Batch(epsilon=0.1, momentum=0.5))


def truth(kind: Batch, x: np.ndarray, p: dict, train: bool = False) -> np.ndarray:
  mean, variance = p['mean'], p['variance']
  if train:
    rows = x.reshape(-1, x.shape[-1])
    mean, variance = rows.mean(0), rows.var(0)
  return (x - mean) / np.sqrt(variance + kind.epsilon) * p['scale'] + p['bias']
