"""sum of R_is(x_i) c_iso + bias_o, R a bump of two ReLUs (ReLU-KAN, arXiv 2406.02075).

R_is(x) = (relu(x - s_is) relu(e_is - x) 4 / w^2)^2 with w = (order + 1) times the step of
the grid, the width of all intervals at the start. They are trained, for each input its own.
c and bias start uniform by their fan-in. S = grid + order.
"""

import dataclasses
from typing import Any, Literal

import flax.linen as nn
import jax
import numpy as np

from elas_jax.ops.kan.base import lead, mix, overlapping_intervals
from elas_jax.ops.kan.relu import relu_basis
from elas_jax.systems.kinds import Parts
from elas_jax.systems.linears import kan_common as common


@dataclasses.dataclass(frozen=True)
class ReLUKAN(common.Family):
  grid: int = 3  # intervals of the range
  order: int = 3  # how many of them each bump reaches beyond its first, at most grid
  grid_min: float = 0.0  # where the range starts
  grid_max: float = 1.0  # where it ends
  data_norm: Literal['layer', 'none'] = 'layer'  # LayerNorm of the inputs
  init_scale: float = 1.0  # factor of the coefficients' start

  def check(self, where: str, config: Any) -> None:
    common.check_family(where, self)
    common.check_order(where, self)

  def bases(self) -> int:
    return self.grid + self.order


class Module(nn.Module):
  features: int
  kind: ReLUKAN
  parts: Parts

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    c, dtype, I, O = self.kind, self.parts.param_dtype, x.shape[-1], self.features
    starts_S, ends_S = overlapping_intervals(c.grid, c.order, c.grid_min, c.grid_max)
    S = c.grid + c.order
    starts_IxS = self.param('starts', common.constant(starts_S), (I, S), dtype)
    ends_IxS = self.param('ends', common.constant(ends_S), (I, S), dtype)
    start = common.scaled(c, common.KAIMING_ISxO)
    c_IxSxO = self.param('coefficients', start, (I, S, O), dtype)
    bias_O = self.param('bias', common.uniform(I * S), (O,), dtype)
    width = (c.order + 1) * (c.grid_max - c.grid_min) / c.grid
    basis = relu_basis(common.normalised(x, c, self.parts), starts_IxS, ends_IxS, width)
    return (mix(basis, c_IxSxO, x.dtype) + lead(bias_O, x.ndim)).astype(x.dtype)


AXES = lambda kind: {
  'starts': (None, None),
  'ends': (None, None),
  'coefficients': ('in', None, 'out'),
  'bias': (None,),
  **common.shared_axes(kind),
}
NO_DECAY = lambda kind: ('bias', *common.shared_no_decay(kind))
MATRICES = ('coefficients',)
CASES = (ReLUKAN(), ReLUKAN(grid=4, order=2, grid_min=-1.0, data_norm='none'))


def truth(kind, x, p):
  x = common.true_norm(kind, x, p)[..., None]
  width = (kind.order + 1) * (kind.grid_max - kind.grid_min) / kind.grid
  above, below = np.maximum(x - p['starts'], 0), np.maximum(p['ends'] - x, 0)
  return common.true_mix((above * below * 4 / width**2) ** 2, p) + p['bias']
