"""act(x) W_b + sum of (B_s(x_i) + G_s(x_i)) c_iso (BSRBF-KAN, arXiv 2406.11173).

B-splines and Gaussians share coefficients. Both matrices start uniform by their fan-in.
S = grid + order.
"""

import dataclasses
from typing import Any, Literal

import flax.linen as nn
import jax
import numpy as np

from elas_jax.ops.kan.base import base_branch, mix
from elas_jax.ops.kan.radial import bspline_radial_basis
from elas_jax.ops.linear import kaiming_uniform
from elas_jax.systems.activations import ACTIVATIONS
from elas_jax.systems.kinds import Parts, section
from elas_jax.systems.linears import kan_common as common
from elas_jax.systems.linears.kan_bspline import true_splines
from elas_jax.systems.linears.kan_fast import true_gaussians


@dataclasses.dataclass(frozen=True)
class BSRBF(common.Family):
  grid: int = 5  # intervals of the range
  order: int = 3  # of the splines, at most grid
  grid_min: float = -1.5  # where the range starts
  grid_max: float = 1.5  # where it ends
  activation: Any = section(ACTIVATIONS, 'silu')  # of the base branch
  data_norm: Literal['layer', 'none'] = 'layer'  # LayerNorm of the inputs
  init_scale: float = 1.0  # factor of the coefficients' start; 0: the base branch alone

  def check(self, where: str, config: Any) -> None:
    common.check_family(where, self)
    common.check_order(where, self)

  def bases(self) -> int:
    return self.grid + self.order


class Module(nn.Module):
  features: int
  kind: BSRBF
  parts: Parts

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    c, dtype, I, O = self.kind, self.parts.param_dtype, x.shape[-1], self.features
    start = common.scaled(c, common.KAIMING_ISxO)
    c_IxSxO = self.param('coefficients', start, (I, c.grid + c.order, O), dtype)
    base_IxO = self.param('base', kaiming_uniform, (I, O), dtype)
    wide = common.normalised(x, c, self.parts)
    basis = bspline_radial_basis(wide, c.grid, c.order, c.grid_min, c.grid_max)
    y = base_branch(wide, base_IxO, common.activation(c, self.parts), x.dtype)
    return (y + mix(basis, c_IxSxO, x.dtype)).astype(x.dtype)


AXES = lambda kind: {
  'coefficients': ('in', None, 'out'),
  'base': (None, None),
  **common.shared_axes(kind),
}
NO_DECAY = common.shared_no_decay
MATRICES = ('coefficients', 'base')
CASES = (
  BSRBF(),
  BSRBF(grid=4, order=2, activation=ACTIVATIONS['tanh'](), data_norm='none'),
)


def truth(kind, x, p):
  x, step = common.true_norm(kind, x, p), (kind.grid_max - kind.grid_min) / kind.grid
  knots_M = kind.grid_min + step * np.arange(-kind.order, kind.grid + kind.order + 1)
  splines = true_splines(x, np.tile(knots_M, (x.shape[-1], 1)), kind.order)
  both = splines + true_gaussians(x, kind, kind.grid + kind.order)
  return common.true_activation(kind, x, p) @ p['base'] + common.true_mix(both, p)
