"""act(x) W_b + sum of B_s(x_i) c_iso scaler_io, B-splines (KAN, arXiv 2404.19756).

In the form of EfficientKAN, which evaluates the splines once for all outputs. W_b and the
scaler start uniform within 1 / sqrt(I), the splines as a fit of small noise. Published
without LayerNorm. The knots are a buffer: ops/kan/bspline.py updates and extends them.
S = grid + order.
"""

import dataclasses
from typing import Any, Literal

import flax.linen as nn
import jax
import numpy as np

from elas_jax.ops.kan import bspline as ops
from elas_jax.ops.linear import kaiming_uniform
from elas_jax.systems.activations import ACTIVATIONS
from elas_jax.systems.kinds import Parts, section
from elas_jax.systems.linears import kan_common as common
from elas_jax.systems.sown import sow


@dataclasses.dataclass(frozen=True)
class BSpline(common.Family):
  grid: int = 5  # intervals of the range
  order: int = 3  # of the splines, at most grid
  grid_min: float = -1.0  # where the range starts
  grid_max: float = 1.0  # where it ends
  activation: Any = section(ACTIVATIONS, 'silu')  # of the base branch
  data_norm: Literal['layer', 'none'] = 'none'  # LayerNorm of the inputs
  init_scale: float = 1.0  # factor of the coefficients' start; 0: the base branch alone

  def check(self, where: str, config: Any) -> None:
    common.check_family(where, self)
    common.check_order(where, self)

  def bases(self) -> int:
    return self.grid + self.order


class Module(nn.Module):
  features: int
  kind: BSpline
  parts: Parts

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    c, dtype, I, O = self.kind, self.parts.param_dtype, x.shape[-1], self.features
    grid = (I, c.grid, c.order, c.grid_min, c.grid_max)
    even = lambda: ops.uniform_knots(*grid)
    knots_IxM = self.variable('buffers', 'knots', even).value
    noise = lambda *how: ops.noise_start(*how, even(), c.order)
    shape = (I, c.grid + c.order, O)
    c_IxSxO = self.param('coefficients', common.scaled(c, noise), shape, dtype)
    scaler_IxO = self.param('scaler', kaiming_uniform, (I, O), dtype)
    base_IxO = self.param('base', kaiming_uniform, (I, O), dtype)
    wide = common.normalised(x, c, self.parts)
    sow(self, 'inputs', lambda: wide.reshape(-1, I))
    weights = (base_IxO, c_IxSxO, scaler_IxO, knots_IxM)
    act = common.activation(c, self.parts)
    return ops.bspline(wide, *weights, c.order, act, x.dtype).astype(x.dtype)


AXES = lambda kind: {
  'knots': (None, None),
  'coefficients': ('in', None, 'out'),
  'scaler': (None, None),
  'base': (None, None),
  **common.shared_axes(kind),
}
NO_DECAY = common.shared_no_decay
MATRICES = ('coefficients', 'base')
CASES = (
  BSpline(),
  BSpline(grid=4, order=2, activation=ACTIVATIONS['tanh'](), data_norm='layer'),
)


def truth(kind, x, p):
  x = common.true_norm(kind, x, p)
  curves = {'coefficients': p['coefficients'] * p['scaler'][:, None]}
  spline = common.true_mix(true_splines(x, p['knots'], kind.order), curves)
  return common.true_activation(kind, x, p) @ p['base'] + spline


def true_splines(x: np.ndarray, knots_IxM: np.ndarray, order: int) -> np.ndarray:
  """Cox and de Boor's definition of the B-splines, one by one: (..., I) -> (..., I, S)."""
  t = lambda s: knots_IxM[:, s]

  def spline(s: int, order: int) -> np.ndarray:
    if not order:
      return ((t(s) <= x) & (x < t(s + 1))).astype(np.float64)
    rising = (x - t(s)) / (t(s + order) - t(s))
    falling = (t(s + order + 1) - x) / (t(s + order + 1) - t(s + 1))
    return rising * spline(s, order - 1) + falling * spline(s + 1, order - 1)

  return np.stack([spline(s, order) for s in range(knots_IxM.shape[1] - order - 1)], -1)
