"""sum of (1 - tanh^2(x_i - c_s)) c_iso, c_s evenly spaced (FasterKAN); no base branch.

c starts Xavier uniform. FasterKAN's own backward pass multiplies by 1/2 what the forward
pass does not; here the gradient is that of the formula. S = grid.
"""

import dataclasses
from typing import Any, Literal

import flax.linen as nn
import jax
import numpy as np

from elas_jax.ops.kan.base import mix
from elas_jax.ops.kan.radial import switch_basis
from elas_jax.systems.kinds import Parts
from elas_jax.systems.linears import kan_common as common


@dataclasses.dataclass(frozen=True)
class Faster(common.Family):
  grid: int = 8  # bumps of each input
  grid_min: float = -1.2  # the first centre
  grid_max: float = 0.2  # the last one
  data_norm: Literal['layer', 'none'] = 'layer'  # LayerNorm of the inputs
  init_scale: float = 1.0  # factor of the coefficients' start

  def check(self, where: str, config: Any) -> None:
    common.check_family(where, self)

  def bases(self) -> int:
    return self.grid


class Module(nn.Module):
  features: int
  kind: Faster
  parts: Parts

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    c, shape = self.kind, (x.shape[-1], self.kind.grid, self.features)
    start = common.scaled(c, common.XAVIER_ISxO)
    c_IxSxO = self.param('coefficients', start, shape, self.parts.param_dtype)
    wide = common.normalised(x, c, self.parts)
    basis = switch_basis(wide, c.grid, c.grid_min, c.grid_max)
    return mix(basis, c_IxSxO, x.dtype).astype(x.dtype)


AXES = lambda kind: {'coefficients': ('in', None, 'out'), **common.shared_axes(kind)}
NO_DECAY = common.shared_no_decay
MATRICES = ('coefficients',)
CASES = (Faster(), Faster(grid=1, data_norm='none'))


def truth(kind, x, p):
  middle = [(kind.grid_min + kind.grid_max) / 2]
  points = np.linspace(kind.grid_min, kind.grid_max, kind.grid)
  offsets = common.true_norm(kind, x, p)[..., None] - (middle if kind.grid == 1 else points)
  return common.true_mix(1 / np.cosh(offsets) ** 2, p)
