"""sum of T_n(tanh x_i) c_ino, Chebyshev polynomials (ChebyKAN, arXiv 2405.07200).

cos(n arccos(tanh x)) by a recurrence, which has no derivative that blows up where tanh x
rounds to 1. c ~ normal(0, 1 / (I S)), S = order + 1.
"""

import dataclasses
from typing import Any, ClassVar, Literal

import numpy as np

from elas_jax.systems.linears import kan_common as common
from elas_jax.systems.linears import kan_polynomial


@dataclasses.dataclass(frozen=True)
class Chebyshev(common.Family):
  order: int = 3  # degree of the polynomials
  data_norm: Literal['layer', 'none'] = 'layer'  # LayerNorm of the inputs
  init_scale: float = 1.0  # factor of the coefficients' start

  polynomial: ClassVar[str] = 'chebyshev'

  def check(self, where: str, config: Any) -> None:
    common.check_family(where, self)

  def bases(self) -> int:
    return self.order + 1


Module = kan_polynomial.Module
AXES = kan_polynomial.AXES
NO_DECAY = kan_polynomial.NO_DECAY
MATRICES = kan_polynomial.MATRICES
CASES = (Chebyshev(), Chebyshev(order=5, data_norm='none'))


def truth(kind, x, p):
  angles = np.arccos(np.tanh(common.true_norm(kind, x, p)))
  return common.true_mix(np.cos(angles[..., None] * np.arange(kind.order + 1)), p)
