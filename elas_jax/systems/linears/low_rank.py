"""y = x A B, of rank R, as LORO (ICLR 2025) and ELAS (arXiv 2605.03667) factor it.

x (..., I), 'a' (I, R), 'b' (R, O); no scaling, nothing in between, and a 'bias' (O,) only
with parts.use_bias. Costs 2 R (I + O) FLOPs a row, not 2 I O.

Each factor is Xavier normal, as LORO and ELAS start, or, with factor_init='spectral', the
two are the balanced SVD of a dense start: A B is its best approximation (Khodak et al.,
arXiv 2105.01029).
"""

import dataclasses
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from elas_jax.ops import linear as ops
from elas_jax.systems.kinds import Parts
from elas_jax.systems.linears.common import (
  bias_of,
  check_rank,
  check_svd,
  plain_start,
  plus,
)


@dataclasses.dataclass(frozen=True)
class LowRank:
  rank: int = 128  # R; published: 128 at 60m, 256 at 130m and 350m, 512 at 1b
  factor_init: Literal['xavier', 'spectral'] = 'xavier'  # spectral: SVD of a dense start

  def check(self, where: str, config: Any) -> None:
    check_rank(where, self, config)
    if self.factor_init == 'spectral':
      check_svd(where, self, config)

  def short(self) -> tuple[str, int]:
    """The field of the smaller side of its largest arrays, and its value."""
    return 'model.linear.rank', self.rank

  def make(self, features: int, parts: Parts, name: str) -> nn.Module:
    return Module(features, self, parts, name=name)

  def kernels(self) -> int:
    return 2

  def factors(self) -> bool:
    return True

  def merged(self, p: dict[str, jax.Array]) -> jax.Array:
    return p['a'] @ p['b']


class Module(nn.Module):
  features: int
  kind: LowRank
  parts: Parts

  @nn.compact
  def weights(self, inputs: int) -> tuple[tuple[jax.Array, ...], jax.Array | None]:
    rank, dtype = self.kind.rank, self.parts.param_dtype
    init_a = init_b = nn.initializers.xavier_normal()
    if self.kind.factor_init == 'spectral' and self.is_initializing():
      shape = (inputs, self.features)
      w_IxO = plain_start(self.parts)(self.make_rng('params'), shape, jnp.float32)
      a, b, _ = ops.svd_factors(w_IxO, rank)
      init_a, init_b = (lambda *_: a.astype(dtype)), (lambda *_: b.astype(dtype))
    a_IxR = self.param('a', init_a, (inputs, rank), dtype)
    b_RxO = self.param('b', init_b, (rank, self.features), dtype)
    return (a_IxR, b_RxO), bias_of(self)

  def kernels(self, inputs: int) -> tuple[jax.Array, ...]:
    """The matrices of the product that this map is, where it has no bias."""
    return self.weights(inputs)[0]

  def __call__(self, x: jax.Array) -> jax.Array:
    kernels, bias_O = self.weights(x.shape[-1])
    return plus(ops.chain(x, kernels), bias_O)


AXES = {'a': ('in', 'rank'), 'b': ('rank', 'out'), 'bias': (None,)}
NO_DECAY = ('bias',)
MATRICES = ('a', 'b')
CASES = (LowRank(rank=4), LowRank(rank=3, factor_init='spectral'))


def truth(kind: LowRank, x: np.ndarray, p: dict) -> np.ndarray:
  return x @ p['a'] @ p['b'] + p.get('bias', 0)
