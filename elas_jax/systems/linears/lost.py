"""y = gamma silu(x A) B + (1 - gamma) x[columns] S (Li et al., LOST).

x (..., I), 'a' (I, R), 'b' (R, O), 'sparse' (P, O), and a 'bias' (O,) only with
parts.use_bias. The buffer 'columns' (P,) says which inputs S sees.

A and B start as the SVD of a dense start W. The columns are the inputs where the next 256
components, or as many as there are, are largest; S starts as W's own weights of those, not
those of what A B leaves. Columns and S as in a development code of the authors, A and B and
the silu as their notes and the reviews say of LOST; the released code was not read.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from elas_jax.common.fields import fraction
from elas_jax.ops import linear as ops
from elas_jax.systems.kinds import Parts
from elas_jax.systems.linears.common import (
  bias_of,
  check_rank,
  check_share,
  check_svd,
  plain_start,
  plus,
)


@dataclasses.dataclass(frozen=True)
class LOST:
  rank: int = 128  # R; ours, that of the others at 60m
  gamma: float = 0.5  # the low-rank part counts gamma, the sparse one 1 - gamma
  sparse_share: float = 0.05  # of the input columns that S has

  def check(self, where: str, config: Any) -> None:
    check_rank(where, self, config)
    check_svd(where, self, config)
    check_share(where, self)
    fraction(where, self, 'gamma')

  def make(self, features: int, parts: Parts, name: str) -> nn.Module:
    return Module(features, self, parts, name=name)


class Module(nn.Module):
  features: int
  kind: LOST
  parts: Parts

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    c, I, O, dtype = self.kind, x.shape[-1], self.features, self.parts.param_dtype
    count = max(int(c.sparse_share * I), 1)
    start = None
    if self.is_initializing():
      w_IxO = plain_start(self.parts)(self.make_rng('params'), (I, O), jnp.float32)
      start = lost_start(w_IxO, c.rank, count)
    shapes = {'a': (I, c.rank), 'b': (c.rank, O), 'sparse': (count, O)}
    a_IxR, b_RxO, s_PxO = (
      self.param(name, lambda _, n=name, s=shape: _given(start, n, s, dtype))
      for name, shape in shapes.items()
    )
    columns_P = self.variable('buffers', 'columns', lambda: start['columns']).value
    y = ops.low_rank_plus_columns(x, a_IxR, b_RxO, s_PxO, columns_P, c.gamma)
    return plus(y, bias_of(self))


def lost_start(w_IxO: jax.Array, rank: int, count: int) -> dict[str, jax.Array]:
  """A, B, the `count` sparse input columns and their weights, all from one dense W."""
  a, b, rest_IxO = ops.svd_factors(w_IxO, rank)
  left, right, _ = ops.svd_factors(rest_IxO, min(256, *w_IxO.shape))
  _, columns_P = jax.lax.top_k(jnp.linalg.norm(left @ right, axis=1), count)
  return {'a': a, 'b': b, 'sparse': w_IxO[columns_P], 'columns': columns_P}


def _given(start, name, shape, dtype):
  """A start that was computed, or where only the shape is asked for, zeros."""
  return jnp.zeros(shape, dtype) if start is None else start[name].astype(dtype)


AXES = {
  'a': ('in', 'rank'),
  'b': ('rank', 'out'),
  'sparse': (None, 'out'),
  'columns': (None,),
  'bias': (None,),
}
NO_DECAY = ('bias',)
MATRICES = ('a', 'b', 'sparse')
CASES = (LOST(rank=3, gamma=0.3, sparse_share=0.25),)


def truth(kind: LOST, x: np.ndarray, p: dict) -> np.ndarray:
  t = x @ p['a']
  low_rank = t / (1 + np.exp(-t)) @ p['b']
  sparse = x[..., p['columns'].astype(int)] @ p['sparse']
  return kind.gamma * low_rank + (1 - kind.gamma) * sparse + p.get('bias', 0)
