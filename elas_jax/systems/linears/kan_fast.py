"""Gaussians of LayerNorm(x) times c, plus act(x) W_b + b (FastKAN, arXiv 2405.06721).

G_s(x) = exp(-((x - c_s) / h)^2) with c evenly spaced by h. Coefficients ~ normal(0, 0.1),
W_b and b uniform within 1 / sqrt(I). The base branch gets x as it is. S = grid.
"""

import dataclasses
from typing import Any, Literal

import flax.linen as nn
import jax
import numpy as np

from elas_jax.ops.kan.base import base_branch, lead, mix
from elas_jax.ops.kan.radial import gaussian_basis
from elas_jax.ops.linear import kaiming_uniform
from elas_jax.systems.activations import ACTIVATIONS
from elas_jax.systems.kinds import Parts, section
from elas_jax.systems.linears import kan_common as common


@dataclasses.dataclass(frozen=True)
class Fast(common.Family):
  grid: int = 8  # Gaussians of each input
  grid_min: float = -2.0  # the first centre
  grid_max: float = 2.0  # the last one
  activation: Any = section(ACTIVATIONS, 'silu')  # of the base branch
  data_norm: Literal['layer', 'none'] = 'layer'  # LayerNorm of the Gaussians' inputs
  init_scale: float = 1.0  # factor of the coefficients' start; 0: the base branch alone

  def check(self, where: str, config: Any) -> None:
    common.check_family(where, self)

  def bases(self) -> int:
    return self.grid


class Module(nn.Module):
  features: int
  kind: Fast
  parts: Parts

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    c, dtype, I, O = self.kind, self.parts.param_dtype, x.shape[-1], self.features
    start = common.scaled(c, nn.initializers.normal(0.1))
    c_IxSxO = self.param('coefficients', start, (I, c.grid, O), dtype)
    base_IxO = self.param('base', kaiming_uniform, (I, O), dtype)
    bias_O = self.param('bias', common.uniform(I), (O,), dtype)
    wide = common.normalised(x, c, self.parts)
    basis = gaussian_basis(wide, c.grid, c.grid_min, c.grid_max)
    act = common.activation(c, self.parts)
    y = base_branch(x, base_IxO, act, x.dtype) + lead(bias_O, x.ndim)
    return (y + mix(basis, c_IxSxO, x.dtype)).astype(x.dtype)


AXES = lambda kind: {
  'coefficients': ('in', None, 'out'),
  'base': (None, None),
  'bias': (None,),
  **common.shared_axes(kind),
}
NO_DECAY = lambda kind: ('bias', *common.shared_no_decay(kind))
MATRICES = ('coefficients', 'base')
CASES = (Fast(), Fast(grid=1, activation=ACTIVATIONS['tanh'](), data_norm='none'))


def truth(kind, x, p):
  base = common.true_activation(kind, x, p) @ p['base'] + p['bias']
  return base + common.true_mix(true_gaussians(common.true_norm(kind, x, p), kind), p)


def true_gaussians(x: np.ndarray, kind: Any, count: int | None = None) -> np.ndarray:
  """Those at `count` points from grid_min to grid_max, one alone in their middle."""
  count, low, high = count or kind.grid, kind.grid_min, kind.grid_max
  if count == 1:
    return np.exp(-(((x[..., None] - (low + high) / 2) / (high - low)) ** 2))
  step = (high - low) / (count - 1)
  return np.exp(-(((x[..., None] - low) / step - np.arange(count)) ** 2))
