"""Linear layers by name. Each maps (..., I) to (..., features) and has no bias.

`kernels` declares the matrices of those kinds that are a plain chain of products, for
layers that work on them directly.
"""

import flax.linen as nn
import jax

from elas_jax.config.config import ModelConfig
from elas_jax.layers.kan import KANS
from elas_jax.layers.low_rank_variants import LOST, CoLA, LoRA, SLTrain
from elas_jax.layers.quadratic import QuadraticDense
from elas_jax.ops import linear as ops


class Dense(nn.Module):
  """y = x W; W ~ normal(0, init_std)."""

  features: int
  config: ModelConfig

  @nn.compact
  def kernels(self, in_features: int) -> tuple[jax.Array, ...]:
    init = nn.initializers.normal(self.config.init_std)
    shape = (in_features, self.features)
    return (self.param('kernel', init, shape, self.config.param_dtype),)

  def __call__(self, x: jax.Array) -> jax.Array:
    return ops.chain(x, self.kernels(x.shape[-1]))


class LowRank(nn.Module):
  """y = x A B^T with factors of rank R.

  Each factor is Xavier normal, as LORO and ELAS start, or, with factor_init='spectral',
  the two are the balanced SVD of a dense start: A B^T is its best approximation.
  """

  features: int
  config: ModelConfig

  @nn.compact
  def kernels(self, in_features: int) -> tuple[jax.Array, ...]:
    c, shape = self.config, (in_features, self.features)
    init_a = init_b = nn.initializers.xavier_normal()
    if c.factor_init == 'spectral' and self.is_initializing():
      w_IxO = c.init_std * jax.random.normal(self.make_rng('params'), shape)
      a, b, _ = ops.svd_factors(w_IxO, c.rank)
      init_a, init_b = (
        (lambda *_: a.astype(c.param_dtype)),
        (lambda *_: b.astype(c.param_dtype)),
      )
    a_IxR = self.param('a', init_a, (in_features, c.rank), c.param_dtype)
    b_RxO = self.param('b', init_b, (c.rank, self.features), c.param_dtype)
    return a_IxR, b_RxO

  def __call__(self, x: jax.Array) -> jax.Array:
    return ops.chain(x, self.kernels(x.shape[-1]))


class Quadratic(nn.Module):
  """y = (x W_r) (x W_g + b_g) + (x * x) W_b; see layers/quadratic.py."""

  features: int
  config: ModelConfig

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    c = self.config
    return QuadraticDense(
      self.features,
      c.quadratic_form,
      c.quadratic_start,
      use_bias=False,
      init_std=c.init_std,
      param_dtype=c.param_dtype,
      name='quadratic',
    )(x)


class Kan(nn.Module):
  """A Kolmogorov-Arnold layer, of the family behind 'kan_' in model.linear."""

  features: int
  config: ModelConfig

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    family = self.config.linear.removeprefix('kan_')
    return KANS[family](self.features, self.config.kan, name='kan')(x)


LINEARS = {
  'dense': Dense,
  'low_rank': LowRank,
  'cola': CoLA,
  'lora': LoRA,
  'sltrain': SLTrain,
  'lost': LOST,
  'quadratic': Quadratic,
  **{f'kan_{family}': Kan for family in KANS},
}
