"""y = silu(x A) B (CoLA, arXiv 2502.10940).

x (..., I), 'a' (I, R), 'b' (R, O), and a 'bias' (O,) only with parts.use_bias. Both factors
are normal of standard deviation R^(-1/4) (I + O)^(-1/4). x A is named 'bottleneck' for
remat policies that keep nothing else (CoLA-M).
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from elas_jax.ops import linear as ops
from elas_jax.systems.kinds import Parts
from elas_jax.systems.linears.common import bias_of, check_rank, plus


@dataclasses.dataclass(frozen=True)
class CoLA:
  rank: int = 128  # R; published: 128 at 60m, 256 at 130m and 350m, 512 at 1b

  def check(self, where: str, config: Any) -> None:
    check_rank(where, self, config)

  def short(self) -> tuple[str, int]:
    """The field of the smaller side of its largest arrays, and its value."""
    return 'model.linear.rank', self.rank

  def make(self, features: int, parts: Parts, name: str) -> nn.Module:
    return Module(features, self, parts, name=name)


class Module(nn.Module):
  features: int
  kind: CoLA
  parts: Parts

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    I, R, dtype = x.shape[-1], self.kind.rank, self.parts.param_dtype
    init = nn.initializers.normal((R * (I + self.features)) ** -0.25)
    a_IxR = self.param('a', init, (I, R), dtype)
    b_RxO = self.param('b', init, (R, self.features), dtype)
    return plus(ops.low_rank_silu(x, a_IxR, b_RxO), bias_of(self))


AXES = {'a': ('in', 'rank'), 'b': ('rank', 'out'), 'bias': (None,)}
NO_DECAY = ('bias',)
MATRICES = ('a', 'b')
CASES = (CoLA(rank=4),)


def truth(kind: CoLA, x: np.ndarray, p: dict) -> np.ndarray:
  t = x @ p['a']
  return t / (1 + np.exp(-t)) @ p['b'] + p.get('bias', 0)
