"""sum of psi((x_i - t_is) / s_is) c_iso, wavelets (after Wav-KAN, arXiv 2405.12832).

Wav-KAN gives each edge one wavelet of its own, which takes a tensor of inputs times outputs
for every row; here an input has `grid` wavelets, which all outputs share. t starts evenly
spaced, s at 1, c uniform within 1 / sqrt(I S). Its batch norm is left out. S = grid.
"""

import dataclasses
import math
from typing import Any, Literal

import flax.linen as nn
import jax
import numpy as np

from elas_jax.ops.kan.base import centres, mix
from elas_jax.ops.kan.wavelet import WAVELETS, wavelet_basis
from elas_jax.systems.kinds import Parts
from elas_jax.systems.linears import kan_common as common


@dataclasses.dataclass(frozen=True)
class Wavelet(common.Family):
  wavelet: Literal[tuple(WAVELETS)] = 'mexican_hat'  # psi
  grid: int = 4  # wavelets of each input; ours
  grid_min: float = -2.0  # the first translation; ours
  grid_max: float = 2.0  # the last one; ours
  data_norm: Literal['layer', 'none'] = 'layer'  # LayerNorm of the inputs
  init_scale: float = 1.0  # factor of the coefficients' start

  def check(self, where: str, config: Any) -> None:
    common.check_family(where, self)

  def bases(self) -> int:
    return self.grid


class Module(nn.Module):
  features: int
  kind: Wavelet
  parts: Parts

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    c, dtype = self.kind, self.parts.param_dtype
    shape = (x.shape[-1], c.grid, self.features)
    points = common.constant(centres(c.grid, c.grid_min, c.grid_max))
    t_IxS = self.param('translation', points, shape[:2], dtype)
    s_IxS = self.param('scale', nn.initializers.ones, shape[:2], dtype)
    start = common.scaled(c, common.KAIMING_ISxO)
    c_IxSxO = self.param('coefficients', start, shape, dtype)
    basis = wavelet_basis(common.normalised(x, c, self.parts), s_IxS, t_IxS, c.wavelet)
    return mix(basis, c_IxSxO, x.dtype).astype(x.dtype)


AXES = lambda kind: {
  'translation': (None, None),
  'scale': (None, None),
  'coefficients': ('in', None, 'out'),
  **common.shared_axes(kind),
}
NO_DECAY = common.shared_no_decay
MATRICES = ('coefficients',)
_shannon = Wavelet('shannon', grid=1, data_norm='none')
CASES = (*(Wavelet(name) for name in WAVELETS if name != 'shannon'), _shannon)


def truth(kind, x, p):
  t = (common.true_norm(kind, x, p)[..., None] - p['translation']) / p['scale']
  bell, size = np.exp(-(t**2) / 2), np.abs(t)
  u = np.clip(2 * size - 1, 0, 1)
  v = u**4 * (35 - 84 * u + 70 * u**2 - 20 * u**3)
  bump = np.sin(np.pi * size) * np.cos(np.pi / 2 * v)
  psi = {
    'mexican_hat': 2 / math.sqrt(3) / np.pi**0.25 * (1 - t**2) * bell,
    'morlet': np.cos(5 * t) * bell,
    'dog': -t * bell,
    'meyer': np.where(size < 1, bump, 0),
    'shannon': 2 * np.sinc(2 * t) - np.sinc(t),
  }[kind.wavelet]
  return common.true_mix(psi, p)
