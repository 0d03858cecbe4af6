"""sum of a_iko cos(k x_i) + b_iko sin(k x_i) + bias_o, k = 1 ... grid (FourierKAN).

Coefficients ~ normal(0, 1 / sqrt(I grid)), bias zero. S = 2 grid.
"""

import dataclasses
from typing import Any, Literal

import flax.linen as nn
import jax
import numpy as np

from elas_jax.ops.kan.base import lead, mix
from elas_jax.ops.kan.fourier import fourier_basis
from elas_jax.systems.kinds import Parts
from elas_jax.systems.linears import kan_common as common


@dataclasses.dataclass(frozen=True)
class Fourier(common.Family):
  grid: int = 5  # frequencies
  data_norm: Literal['layer', 'none'] = 'layer'  # LayerNorm of the inputs
  init_scale: float = 1.0  # factor of the coefficients' start

  def check(self, where: str, config: Any) -> None:
    common.check_family(where, self)

  def bases(self) -> int:
    return 2 * self.grid


class Module(nn.Module):
  features: int
  kind: Fourier
  parts: Parts

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    c, dtype, I, O = self.kind, self.parts.param_dtype, x.shape[-1], self.features
    start = common.scaled(c, nn.initializers.normal((I * c.grid) ** -0.5))
    c_IxSxO = self.param('coefficients', start, (I, 2 * c.grid, O), dtype)
    bias_O = self.param('bias', nn.initializers.zeros, (O,), dtype)
    basis = fourier_basis(common.normalised(x, c, self.parts), c.grid)
    return (mix(basis, c_IxSxO, x.dtype) + lead(bias_O, x.ndim)).astype(x.dtype)


AXES = lambda kind: {
  'coefficients': ('in', None, 'out'),
  'bias': (None,),
  **common.shared_axes(kind),
}
NO_DECAY = lambda kind: ('bias', *common.shared_no_decay(kind))
MATRICES = ('coefficients',)
CASES = (Fourier(), Fourier(grid=3, data_norm='none'))


def truth(kind, x, p):
  angles = common.true_norm(kind, x, p)[..., None] * np.arange(1, kind.grid + 1)
  basis = np.concatenate([np.cos(angles), np.sin(angles)], -1)
  return common.true_mix(basis, p) + p['bias']
