"""Kolmogorov-Arnold layers by name. Each maps (..., I) to (..., features).

Bases are computed in float32, products in the input's dtype; results have that dtype.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from elas_jax.config.config import KanConfig
from elas_jax.ops.kan import af as af_ops
from elas_jax.ops.kan import bspline as spline_ops
from elas_jax.ops.kan import radial
from elas_jax.ops.kan.base import base_branch, centres, lead, mix, overlapping_intervals
from elas_jax.ops.kan.fourier import fourier_basis
from elas_jax.ops.kan.patches import patches
from elas_jax.ops.kan.polynomial import polynomial_basis
from elas_jax.ops.kan.relu import relu_basis
from elas_jax.ops.kan.selection import select, selection_weights
from elas_jax.ops.kan.skan import skan
from elas_jax.ops.kan.wavelet import wavelet_basis
from elas_jax.ops.linear import dense, kaiming_uniform

# The same over inputs and bases together, for (I, S, O).
KAIMING_ISxO = nn.initializers.variance_scaling(
  1 / 3, 'fan_in', 'uniform', in_axis=(0, 1), out_axis=2
)
XAVIER_ISxO = nn.initializers.xavier_uniform(in_axis=(0, 1), out_axis=2)


def _uniform(fan_in: int):
  """Uniform within sqrt(1 / fan_in), for biases and vectors."""
  bound = fan_in**-0.5
  return lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -bound, bound)


def _constant(values):
  return lambda _, shape, dtype: jnp.broadcast_to(jnp.asarray(values, dtype), shape)


def _scaled(config: KanConfig, init):
  return lambda key, shape, dtype: config.init_scale * init(key, shape, dtype)


def _normalised(x: jax.Array, config: KanConfig) -> jax.Array:
  """In float32, after the LayerNorm of the module that calls this, if there is one."""
  x = x.astype(jnp.float32)
  if config.data_norm == 'none':
    return x
  kinds = {'dtype': jnp.float32, 'param_dtype': config.param_dtype}
  norm = nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, name='norm', **kinds)
  return norm(x)


class BSpline(nn.Module):
  """EfficientKAN: activation(x) W_b + sum of B_s(x_i) c_iso scaler_io (arXiv 2404.19756).

  W_b and scaler uniform within 1 / sqrt(I), the splines a fit of small noise. Published
  without LayerNorm. The knots are a buffer: ops/kan/bspline.py updates and extends them.
  """

  features: int
  config: KanConfig

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    c, I, O = self.config, x.shape[-1], self.features
    grid = (I, c.grid, c.order, c.grid_min, c.grid_max)
    even = lambda: spline_ops.uniform_knots(*grid)
    knots_IxM = self.variable('buffers', 'knots', even).value
    noise = lambda *how: spline_ops.noise_start(*how, even(), c.order)
    shape = (I, c.grid + c.order, O)
    c_IxSxO = self.param('coefficients', _scaled(c, noise), shape, c.param_dtype)
    scaler_IxO = self.param('scaler', kaiming_uniform, (I, O), c.param_dtype)
    base_IxO = self.param('base', kaiming_uniform, (I, O), c.param_dtype)
    wide = _normalised(x, c)
    weights = (base_IxO, c_IxSxO, scaler_IxO, knots_IxM)
    y = spline_ops.bspline(wide, *weights, c.order, c.activation, x.dtype)
    return y.astype(x.dtype)


class Polynomial(nn.Module):
  """Sum of P_s(x_i) c_iso over orthogonal polynomials; c ~ normal(0, 1 / (I S))."""

  features: int
  config: KanConfig

  @property
  def polynomial(self) -> str:
    return self.config.polynomial

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    c, shape = self.config, (x.shape[-1], self.config.order + 1, self.features)
    start = _scaled(c, nn.initializers.normal(1 / (shape[0] * shape[1])))
    c_IxSxO = self.param('coefficients', start, shape, c.param_dtype)
    basis = polynomial_basis(_normalised(x, c), c.order, self.polynomial)
    return mix(basis, c_IxSxO, x.dtype).astype(x.dtype)


class Chebyshev(Polynomial):
  """ChebyKAN: sum of T_s(tanh x_i) c_iso."""

  polynomial = 'chebyshev'


class Fourier(nn.Module):
  """FourierKAN: sum of a_iko cos(k x_i) + b_iko sin(k x_i) + bias_o, k = 1 ... grid.

  Coefficients ~ normal(0, 1 / sqrt(I grid)), bias zero.
  """

  features: int
  config: KanConfig

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    c, I, O = self.config, x.shape[-1], self.features
    start = _scaled(c, nn.initializers.normal((I * c.grid) ** -0.5))
    c_IxSxO = self.param('coefficients', start, (I, 2 * c.grid, O), c.param_dtype)
    bias_O = self.param('bias', nn.initializers.zeros, (O,), c.param_dtype)
    y = mix(fourier_basis(_normalised(x, c), c.grid), c_IxSxO, x.dtype)
    return (y + lead(bias_O, x.ndim)).astype(x.dtype)


class Wavelet(nn.Module):
  """Sum of psi((x_i - t_is) / s_is) c_iso, after Wav-KAN (arXiv 2405.12832).

  Wav-KAN gives each edge one wavelet of its own, which takes a tensor of inputs times
  outputs for every row; here an input has `grid` wavelets, which all outputs share. t
  starts evenly spaced, s at 1, c uniform within 1 / sqrt(I S). Its batch norm is left out.
  """

  features: int
  config: KanConfig

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    c, shape = self.config, (x.shape[-1], self.config.grid, self.features)
    points = _constant(centres(c.grid, c.grid_min, c.grid_max))
    t_IxS = self.param('translation', points, shape[:2], c.param_dtype)
    s_IxS = self.param('scale', nn.initializers.ones, shape[:2], c.param_dtype)
    c_IxSxO = self.param('coefficients', _scaled(c, KAIMING_ISxO), shape, c.param_dtype)
    basis = wavelet_basis(_normalised(x, c), s_IxS, t_IxS, c.wavelet)
    return mix(basis, c_IxSxO, x.dtype).astype(x.dtype)


class Fast(nn.Module):
  """FastKAN: Gaussians of LayerNorm(x), plus activation(x) W_b + b (arXiv 2405.06721).

  Coefficients ~ normal(0, 0.1), W_b and b uniform within 1 / sqrt(I). The base branch
  gets x as it is.
  """

  features: int
  config: KanConfig

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    c, I, O = self.config, x.shape[-1], self.features
    start = _scaled(c, nn.initializers.normal(0.1))
    c_IxSxO = self.param('coefficients', start, (I, c.grid, O), c.param_dtype)
    base_IxO = self.param('base', kaiming_uniform, (I, O), c.param_dtype)
    bias_O = self.param('bias', _uniform(I), (O,), c.param_dtype)
    basis = radial.gaussian_basis(_normalised(x, c), c.grid, c.grid_min, c.grid_max)
    y = base_branch(x, base_IxO, c.activation, x.dtype) + lead(bias_O, x.ndim)
    return (y + mix(basis, c_IxSxO, x.dtype)).astype(x.dtype)


class Faster(nn.Module):
  """FasterKAN: sum of (1 - tanh^2(x_i - c_s)) c_iso, Xavier uniform; no base branch."""

  features: int
  config: KanConfig

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    c, shape = self.config, (x.shape[-1], self.config.grid, self.features)
    c_IxSxO = self.param('coefficients', _scaled(c, XAVIER_ISxO), shape, c.param_dtype)
    basis = radial.switch_basis(_normalised(x, c), c.grid, c.grid_min, c.grid_max)
    return mix(basis, c_IxSxO, x.dtype).astype(x.dtype)


class BSRBF(nn.Module):
  """BSRBF-KAN: activation(x) W_b + sum of (B_s(x_i) + G_s(x_i)) c_iso (arXiv 2406.11173).

  B-splines and Gaussians share coefficients. Both matrices uniform by their fan-in.
  """

  features: int
  config: KanConfig

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    c, I, O = self.config, x.shape[-1], self.features
    shape = (I, c.grid + c.order, O)
    c_IxSxO = self.param('coefficients', _scaled(c, KAIMING_ISxO), shape, c.param_dtype)
    base_IxO = self.param('base', kaiming_uniform, (I, O), c.param_dtype)
    wide = _normalised(x, c)
    basis = radial.bspline_radial_basis(wide, c.grid, c.order, c.grid_min, c.grid_max)
    y = base_branch(wide, base_IxO, c.activation, x.dtype)
    return (y + mix(basis, c_IxSxO, x.dtype)).astype(x.dtype)


class ReLUKAN(nn.Module):
  """Sum of R_is(x_i) c_iso + bias_o, R a bump of two ReLUs (arXiv 2406.02075).

  Its intervals are trained, for each input its own. c and bias uniform by their fan-in.
  """

  features: int
  config: KanConfig

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    c, I, O = self.config, x.shape[-1], self.features
    starts_S, ends_S = overlapping_intervals(c.grid, c.order, c.grid_min, c.grid_max)
    S = c.grid + c.order
    starts_IxS = self.param('starts', _constant(starts_S), (I, S), c.param_dtype)
    ends_IxS = self.param('ends', _constant(ends_S), (I, S), c.param_dtype)
    c_IxSxO = self.param('coefficients', _scaled(c, KAIMING_ISxO), (I, S, O), c.param_dtype)
    bias_O = self.param('bias', _uniform(I * S), (O,), c.param_dtype)
    width = (c.order + 1) * (c.grid_max - c.grid_min) / c.grid
    y = mix(relu_basis(_normalised(x, c), starts_IxS, ends_IxS, width), c_IxSxO, x.dtype)
    return (y + lead(bias_O, x.ndim)).astype(x.dtype)


class AFBranch(nn.Module):
  """W act(norm(reduce(min_max(f(act(x - low), act(high - x)))))), without bias, float32.

  low and high (S,) start as ReLU-KAN's intervals; W uniform within 1 / sqrt(I).
  """

  features: int
  config: KanConfig
  reduction: str

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    c, I = self.config, x.shape[-1]
    bounds = overlapping_intervals(c.grid, c.order, c.grid_min, c.grid_max)
    S = c.grid + c.order
    low_S, high_S = (
      self.param(name, _constant(values), (S,), c.param_dtype)
      for name, values in zip(('low', 'high'), bounds)
    )
    pairs = af_ops.pair_functions(x, low_S, high_S, c.activation, c.function)
    scaled = af_ops.min_max(pairs, c.function_norm)
    reduced = af_ops.REDUCTIONS[self.reduction](scaled, *self.reduction_weights(I, S))
    hidden = af_ops.ACTIVATIONS[c.activation](_normalised(reduced, c))
    start = _scaled(c, kaiming_uniform)
    kernel_IxO = self.param('kernel', start, (I, self.features), c.param_dtype)
    return dense(hidden.astype(x.dtype), kernel_IxO.astype(x.dtype), jnp.float32)

  def reduction_weights(self, inputs: int, S: int) -> list[jax.Array]:
    """Kernel, bias and, of the attentions, a temperature that starts at sqrt(I)."""
    dtype, spatial = self.config.param_dtype, self.reduction == 'spatial_attn'
    init = _uniform(3 if spatial else S)
    kernel = self.param('reduce', init, (3, S) if spatial else (S,), dtype)
    weights = [kernel, self.param('reduce_bias', init, (S,) if spatial else (), dtype)]
    if self.reduction != 'multistep':
      weights.append(self.param('temperature', _constant(inputs**0.5), (), dtype))
    return weights


class AF(nn.Module):
  """AF-KAN (arXiv 2503.06112): one branch for each reduction, their outputs combined.

  The authors combine whole networks of one reduction each; this combines in every layer.
  """

  features: int
  config: KanConfig

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    c = self.config
    names = c.reduction.split(',')
    ys = [AFBranch(self.features, c, name, name=name)(x) for name in names]
    return af_ops.COMBINATIONS[c.combine](ys).astype(x.dtype)


class SKAN(nn.Module):
  """SKAN: sum of k_jo f(x_j) with the bias as one more input; k uniform by its fan-in."""

  features: int
  config: KanConfig

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    c, start = self.config, _scaled(self.config, kaiming_uniform)
    k_JxO = self.param('k', start, (x.shape[-1] + 1, self.features), c.param_dtype)
    return skan(_normalised(x, c), k_JxO, c.edge, x.dtype).astype(x.dtype)


class Selectable(nn.Module):
  """Sum over a pool of families of softmax(theta)_m y_m, after S-KAN (arXiv 2408.08338).

  Our reading: the paper's formula and schedule are not known to us. `phase` narrows the
  sum from the whole pool to its top_k and to the best; parameters are those of all phases,
  so one run goes on from another. The choice is read off theta at each call. To save the
  time of the losers, take the winner's parameters into a layer of that family.
  """

  features: int
  config: KanConfig

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    c = self.config
    names = c.pool.split(',')
    nodes = (self.features,) if c.selection == 'node' else ()
    zeros = nn.initializers.zeros
    theta = self.param('theta', zeros, (len(names), *nodes), c.param_dtype)
    ys = [KANS[name](self.features, c, name=name)(x) for name in names]
    weights = selection_weights(theta, c.phase, c.top_k)
    return select(ys, weights).astype(x.dtype)


class KanConv(nn.Module):
  """A KAN of every patch: (B, H, W, C) -> (B, H / stride, W / stride, features).

  With kind 'selectable' it is S-ConvKAN. Beyond the border x is 0, which a KAN does not
  in general map to 0.
  """

  features: int
  config: KanConfig
  kind: str  # a name of KANS
  kernel: int  # side of the patches
  stride: int

  @nn.compact
  def __call__(self, x_BxHxWxC: jax.Array) -> jax.Array:
    rows = patches(x_BxHxWxC, self.kernel, self.stride)
    return KANS[self.kind](self.features, self.config, name='kan')(rows)


KANS = {
  'bspline': BSpline,
  'chebyshev': Chebyshev,
  'fourier': Fourier,
  'wavelet': Wavelet,
  'fast': Fast,
  'faster': Faster,
  'bsrbf': BSRBF,
  'relu': ReLUKAN,
  'af': AF,
  'polynomial': Polynomial,
  'skan': SKAN,
  'selectable': Selectable,
}
