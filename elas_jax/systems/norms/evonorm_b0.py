"""x / max(sd of the batch, v x + sd over space) * scale + bias (arXiv 2004.02967).

EvoNorm-B0, which replaces a norm and the activation behind it. sd = sqrt(variance +
epsilon), of each channel: in training of the batch, all devices together, otherwise by a
running average, which is a buffer; of one example over space (evonorm_common.py) always,
and sqrt(epsilon) of rows, which have no space. Nothing is subtracted: where a batch of rows
has the same c < 0 everywhere in a channel, as raw pixels may, that becomes c /
sqrt(epsilon). Not in a decoder. Checked against the authors' code. In the resnet nothing
follows the sum, where they have a ReLU. In float32.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from elas_jax.common.fields import above, fraction
from elas_jax.systems.kinds import Parts
from elas_jax.systems.norms.evonorm_common import (
  PARAMETERS,
  by_channel,
  check_alone,
  scale_bias_v,
  space,
)


@dataclasses.dataclass(frozen=True)
class EvoNormB0:
  epsilon: float = 1e-5  # added to both variances
  momentum: float = 0.9  # share of the old running average that a batch leaves

  def check(self, where: str, config: Any) -> None:
    above(0, where, self, 'epsilon')
    fraction(where, self, 'momentum')
    check_alone(where, 'evonorm_b0', config)

  def make(self, parts: Parts, name: str, train: bool = False) -> nn.Module:
    return Module(self, parts, train, name=name)

  def mixes_rows(self) -> bool:
    return True


class Module(nn.Module):
  kind: EvoNormB0
  parts: Parts
  train: bool

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    kind, wide = self.kind, x.astype(jnp.float32)
    kept = self.variable('buffers', 'variance', jnp.ones, x.shape[-1:])
    affine, v = scale_bias_v(self, x)
    of_batch = kept.value
    if self.train:
      of_batch = wide.var(tuple(range(x.ndim - 1)))
      if not self.is_initializing():
        kept.value = kind.momentum * kept.value + (1 - kind.momentum) * of_batch
    axes = space(x, self.parts)
    of_space = wide.var(axes, keepdims=True) if axes else 0.0
    one = jnp.sqrt(by_channel(of_batch, x) + kind.epsilon)
    other = v * wide + jnp.sqrt(of_space + kind.epsilon)
    return affine(wide / jnp.maximum(one, other))


AXES, NO_DECAY = dict.fromkeys((*PARAMETERS, 'variance'), (None,)), PARAMETERS
CASES = (EvoNormB0(), EvoNormB0(epsilon=0.1, momentum=0.5))


def truth(
  kind: EvoNormB0, x: np.ndarray, p: dict, train: bool = False, space: tuple = ()
) -> np.ndarray:
  """`space`: the axes of one example; none of rows."""
  variance = x.reshape(-1, x.shape[-1]).var(0) if train else p['variance']
  of_space = x.var(space, keepdims=True) if space else 0 * x
  one = np.sqrt(variance + kind.epsilon) + 0 * x
  other = p['v'] * x + np.sqrt(of_space + kind.epsilon)
  return x / np.where(one > other, one, other) * p['scale'] + p['bias']
