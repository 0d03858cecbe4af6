"""x sigmoid(v x) / sqrt(group's variance + epsilon) * scale + bias (arXiv 2004.02967).

EvoNorm-S0, which replaces a norm and the activation behind it, of each example alone. The
variance is of a group of channels over space (evonorm_common.py), and of a position's
channels alone in rows and in a causal decoder. Groups are as many as divide the channels,
up to `groups`, as in the authors' code, which this was checked against. Ours: a variance is
of 16 numbers at least, if there are so many; of fewer, of one in particular, it may vanish.
In the resnet nothing follows the sum, where the authors have a ReLU. In float32.
"""

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from elas_jax.common.fields import above, at_least
from elas_jax.systems.kinds import Parts
from elas_jax.systems.norms.evonorm_common import (
  PARAMETERS,
  check_alone,
  scale_bias_v,
  space,
)

LEAST = 16  # numbers of a variance


@dataclasses.dataclass(frozen=True)
class EvoNormS0:
  groups: int = 32  # of channels, at most; fewer where these do not divide the channels
  epsilon: float = 1e-5  # added to the variance

  def check(self, where: str, config: Any) -> None:
    at_least(1, where, self, 'groups')
    above(0, where, self, 'epsilon')
    check_alone(where, 'evonorm_s0', config)

  def make(self, parts: Parts, name: str, train: bool = False) -> nn.Module:
    return Module(self, parts, name=name)

  def count(self, channels: int, positions: int) -> int:
    """Groups of so many channels, at so many positions."""
    most = min(self.groups, channels, max(channels * positions // LEAST, 1))
    return next(count for count in range(most, 0, -1) if channels % count == 0)


class Module(nn.Module):
  kind: EvoNormS0
  parts: Parts

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    affine, v = scale_bias_v(self, x)
    wide, axes, channels = x.astype(jnp.float32), space(x, self.parts), x.shape[-1]
    count = self.kind.count(channels, math.prod(x.shape[axis] for axis in axes))
    grouped = wide.reshape(*x.shape[:-1], count, channels // count)
    variance = grouped.var((*axes, grouped.ndim - 1), keepdims=True)
    scaled = grouped * jax.lax.rsqrt(variance + self.kind.epsilon)
    return affine(scaled.reshape(x.shape) * jax.nn.sigmoid(v * wide))


AXES, NO_DECAY = dict.fromkeys(PARAMETERS, (None,)), PARAMETERS
CASES = (EvoNormS0(), EvoNormS0(groups=2, epsilon=0.1))


def truth(kind: EvoNormS0, x: np.ndarray, p: dict, space: tuple = ()) -> np.ndarray:
  """`space`: the axes over which a variance goes beside its channels; none, if causal."""
  y, channels = x / (1 + np.exp(-p['v'] * x)), x.shape[-1]
  positions = math.prod(x.shape[axis] for axis in space)
  size = min(
    size
    for size in range(1, channels + 1)
    if channels % size == 0
    and channels // size <= kind.groups
    and (size * positions >= LEAST or size == channels)
  )
  for first in range(0, channels, size):
    group = x[..., first : first + size]
    variance = group.var((*space, -1), keepdims=True)
    y[..., first : first + size] /= np.sqrt(variance + kind.epsilon)
  return y * p['scale'] + p['bias']
