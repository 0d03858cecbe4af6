"""Linear layers that the low-rank literature compares: CoLA, LoRA, SLTrain, LOST."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from elas_jax.config.config import ModelConfig
from elas_jax.ops import linear as ops


class CoLA(nn.Module):
  """y = silu(x A) B^T (arXiv 2502.10940); both ~ normal(0, R^(-1/4) (I + O)^(-1/4))."""

  features: int
  config: ModelConfig

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    c, I = self.config, x.shape[-1]
    init = nn.initializers.normal((c.rank * (I + self.features)) ** -0.25)
    a_IxR = self.param('a', init, (I, c.rank), c.param_dtype)
    b_RxO = self.param('b', init, (c.rank, self.features), c.param_dtype)
    return ops.low_rank_silu(x, a_IxR, b_RxO)


class LoRA(nn.Module):
  """y = x W + alpha / R (x A) B^T, W not trained (arXiv 2106.09685).

  W as a dense layer starts, A uniform by its fan-in, B zero. optim/relora.py merges.
  """

  features: int
  config: ModelConfig

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    c, I = self.config, x.shape[-1]
    start = nn.initializers.normal(c.init_std)
    w_IxO = self.param('kernel', start, (I, self.features), c.param_dtype)
    a_IxR = self.param('a', ops.kaiming_uniform, (I, c.rank), c.param_dtype)
    zeros = nn.initializers.zeros
    b_RxO = self.param('b', zeros, (c.rank, self.features), c.param_dtype)
    return ops.low_rank_plus_dense(x, w_IxO, a_IxR, b_RxO, c.alpha / c.rank)


class SLTrain(nn.Module):
  """y = x (alpha / R A B^T + S), S of random fixed support (arXiv 2406.02214).

  A uniform by its fan-in, B zero, S uniform within 1 / sqrt(I).
  """

  features: int
  config: ModelConfig

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    c, I, O = self.config, x.shape[-1], self.features
    count = max(int(c.sparse_share * I * O), 1)
    draw = lambda: jax.random.choice(self.make_rng('params'), I * O, (count,), False)
    support_P = self.variable('buffers', 'support', draw).value
    uniform = lambda key, shape, dtype: jax.random.uniform(
      key, shape, dtype, -(I**-0.5), I**-0.5
    )
    values_P = self.param('values', uniform, (count,), c.param_dtype)
    a_IxR = self.param('a', ops.kaiming_uniform, (I, c.rank), c.param_dtype)
    b_RxO = self.param('b', nn.initializers.zeros, (c.rank, O), c.param_dtype)
    return ops.low_rank_plus_sparse(x, a_IxR, b_RxO, values_P, support_P, c.alpha / c.rank)


class LOST(nn.Module):
  """y = gamma silu(x A) B^T + (1 - gamma) x[columns] S (Li et al., LOST).

  A and B start as the SVD of a dense start W. The columns are the inputs where the next 256
  components, or as many as there are, are largest; S starts as W's own weights of those.
  Columns and S as in a development code of the authors, A and B and the silu as their
  notes and the reviews say of LOST; the released code was not read.
  """

  features: int
  config: ModelConfig

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    c, I, O = self.config, x.shape[-1], self.features
    count = max(int(c.sparse_share * I), 1)
    start = None
    if self.is_initializing():
      start = ops.lost_start(
        self.make_rng('params'), I, O, c.rank, count, c.init_std, c.param_dtype
      )
    names = {'a': (I, c.rank), 'b': (c.rank, O), 'sparse': (count, O)}
    a_IxR, b_RxO, s_PxO = (
      self.param(name, lambda _, n=name, s=shape: _given(start, n, s, c.param_dtype))
      for name, shape in names.items()
    )
    columns_P = self.variable('buffers', 'columns', lambda: start['columns']).value
    return ops.low_rank_plus_columns(x, a_IxR, b_RxO, s_PxO, columns_P, c.gamma)


def _given(start, name, shape, dtype):
  """A start that was computed, or where only the shape is asked for, zeros."""
  return jnp.zeros(shape, dtype) if start is None else start[name]
