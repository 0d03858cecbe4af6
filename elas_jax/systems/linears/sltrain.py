"""y = x (alpha / R A B + S), S of random fixed support (SLTrain, arXiv 2406.02214).

x (..., I), 'a' (I, R), 'b' (R, O), 'values' (P,) of S, and a 'bias' (O,) only with
parts.use_bias. The buffer 'support' (P,) holds their places in W (I, O), counted row by
row. A is uniform by its fan-in, B zero, S uniform within 1 / sqrt(I).
"""

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from elas_jax.common.errors import UserError
from elas_jax.common.limits import LARGEST_INTEGER
from elas_jax.ops import linear as ops
from elas_jax.systems.kinds import Parts
from elas_jax.systems.linears.common import bias_of, check_rank, check_share, plus


@dataclasses.dataclass(frozen=True)
class SLTrain:
  rank: int = 128  # R; published: 128 at 60m, 256 at 130m and 350m, 512 at 1b
  alpha: float = 32.0  # A B counts alpha / R; published: 32 at 60m, 16 to 350m, 8 beyond
  sparse_share: float = 0.03  # of the entries of W that S has; published: 0.05 at 7b

  def check(self, where: str, config: Any) -> None:
    check_rank(where, self, config)
    check_share(where, self)
    widths = config.model.widths
    entries = config.model.width * max(widths.values())
    if entries > LARGEST_INTEGER:
      raise UserError(
        f'{", ".join(f"{name}={width}" for name, width in widths.items())}: a map has '
        f'{entries} entries; must be at most {LARGEST_INTEGER} with '
        f"{where}='sltrain', which numbers them"
      )

  def make(self, features: int, parts: Parts, name: str) -> nn.Module:
    return Module(features, self, parts, name=name)

  def merged(self, p: dict[str, jax.Array]) -> jax.Array:
    w_IxO = self.alpha / self.rank * (p['a'] @ p['b'])
    add = lambda w, at, values: w.at[at].add(values, unique_indices=True)
    add = jnp.vectorize(add, signature='(n),(p),(p)->(n)')
    flat = w_IxO.reshape(*w_IxO.shape[:-2], -1)
    return add(flat, p['support'], p['values']).reshape(w_IxO.shape)

  def flops(self, shapes: dict[str, tuple[int, ...]]) -> float:
    """Of the product with the whole W; to form it does not count."""
    return 6.0 * math.prod(shapes['a'][:-1]) * shapes['b'][-1]


class Module(nn.Module):
  features: int
  kind: SLTrain
  parts: Parts

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    c, I, O, dtype = self.kind, x.shape[-1], self.features, self.parts.param_dtype
    count = max(int(c.sparse_share * I * O), 1)
    draw = lambda: jax.random.choice(self.make_rng('params'), I * O, (count,), False)
    support_P = self.variable('buffers', 'support', draw).value
    uniform = lambda key, shape, dtype: jax.random.uniform(
      key, shape, dtype, -(I**-0.5), I**-0.5
    )
    values_P = self.param('values', uniform, (count,), dtype)
    a_IxR = self.param('a', ops.kaiming_uniform, (I, c.rank), dtype)
    b_RxO = self.param('b', nn.initializers.zeros, (c.rank, O), dtype)
    scale = c.alpha / c.rank
    y = ops.low_rank_plus_sparse(x, a_IxR, b_RxO, values_P, support_P, scale)
    return plus(y, bias_of(self))


AXES = {
  'a': ('in', 'rank'),
  'b': ('rank', 'out'),
  'values': (None,),
  'support': (None,),
  'bias': (None,),
}
NO_DECAY = ('bias',)
CASES = (SLTrain(rank=4, alpha=8.0, sparse_share=0.125),)


def truth(kind: SLTrain, x: np.ndarray, p: dict) -> np.ndarray:
  w_IxO = kind.alpha / kind.rank * p['a'] @ p['b']
  w_IxO.reshape(-1)[p['support'].astype(int)] += p['values']
  return x @ w_IxO + p.get('bias', 0)
