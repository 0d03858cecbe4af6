"""sum of k_jo f(x_j), one parameter an edge (SKAN; LArctan-SKAN with f = arctan).

The bias is one more input, which is 1; 'relu' is max(k_jo x_j, 0). k starts uniform by its
fan-in. S = 1.
"""

import dataclasses
from typing import Any, Literal

import flax.linen as nn
import jax
import numpy as np

from elas_jax.ops.kan.skan import EDGES, skan
from elas_jax.ops.linear import kaiming_uniform
from elas_jax.systems.kinds import Parts
from elas_jax.systems.linears import kan_common as common


@dataclasses.dataclass(frozen=True)
class SKAN(common.Family):
  edge: Literal[tuple(EDGES)] = 'arctan'  # f
  data_norm: Literal['layer', 'none'] = 'layer'  # LayerNorm of the inputs
  init_scale: float = 1.0  # factor of the start of k

  def check(self, where: str, config: Any) -> None:
    common.check_family(where, self)

  def bases(self) -> int:
    return 1


class Module(nn.Module):
  features: int
  kind: SKAN
  parts: Parts

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    c, shape = self.kind, (x.shape[-1] + 1, self.features)
    start = common.scaled(c, kaiming_uniform)
    k_JxO = self.param('k', start, shape, self.parts.param_dtype)
    wide = common.normalised(x, c, self.parts)
    return skan(wide, k_JxO, c.edge, x.dtype).astype(x.dtype)


AXES = lambda kind: {'k': (None, None), **common.shared_axes(kind)}
NO_DECAY = common.shared_no_decay
MATRICES = ('k',)
_relu = SKAN('relu', data_norm='none')
CASES = (*(SKAN(edge) for edge in EDGES if edge != 'relu'), _relu)


def truth(kind, x, p):
  x = common.true_norm(kind, x, p)
  x, k = np.concatenate([x, np.ones_like(x[..., :1])], -1), p['k']
  if kind.edge == 'relu':
    return np.maximum(x[..., None] * k, 0).sum(-2)
  f = {'arctan': np.arctan, 'sin': np.sin, 'cos': np.cos}[kind.edge]
  return f(x) @ k
