"""Linear layers by name. Each maps (..., I) to (..., features) and has no bias."""

import flax.linen as nn
import jax

from elas_jax.config import ModelConfig
from elas_jax.ops import linear as ops


class Dense(nn.Module):
  """y = x W; W ~ normal(0, init_std)."""

  features: int
  config: ModelConfig

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    init = nn.initializers.normal(self.config.init_std)
    shape = (x.shape[-1], self.features)
    kernel = self.param('kernel', init, shape, self.config.param_dtype)
    return ops.dense(x, kernel.astype(x.dtype))


class LowRank(nn.Module):
  """y = x A B^T with factors of rank R, each Xavier normal (as LORO and ELAS start)."""

  features: int
  config: ModelConfig

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    init, rank = nn.initializers.xavier_normal(), self.config.rank
    a_IxR = self.param('a', init, (x.shape[-1], rank), self.config.param_dtype)
    b_RxO = self.param('b', init, (rank, self.features), self.config.param_dtype)
    return ops.low_rank(x, a_IxR.astype(x.dtype), b_RxO.astype(x.dtype))


LINEARS = {'dense': Dense, 'low_rank': LowRank}
