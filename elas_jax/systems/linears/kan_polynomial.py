"""sum of P_n(x_i) c_ino over orthogonal polynomials, x brought to their domain.

Legendre and Jacobi of tanh x, Hermite of x, Laguerre of softplus x, so that one layer
compares them; Chebyshev's are ChebyKAN (arXiv 2405.07200). c ~ normal(0, 1 / (I S)),
S = order + 1.
"""

import dataclasses
import math
from typing import Any, Literal

import flax.linen as nn
import jax
import numpy as np
from numpy.polynomial import chebyshev, hermite_e, laguerre, legendre

from elas_jax.ops.kan.base import mix
from elas_jax.ops.kan.polynomial import RECURRENCES, polynomial_basis
from elas_jax.systems.kinds import Parts
from elas_jax.systems.linears import kan_common as common


@dataclasses.dataclass(frozen=True)
class Polynomial(common.Family):
  polynomial: Literal[tuple(RECURRENCES)] = 'legendre'  # jacobi: both parameters 1
  order: int = 3  # degree of the polynomials
  data_norm: Literal['layer', 'none'] = 'layer'  # LayerNorm of the inputs
  init_scale: float = 1.0  # factor of the coefficients' start

  def check(self, where: str, config: Any) -> None:
    common.check_family(where, self)

  def bases(self) -> int:
    return self.order + 1


class Module(nn.Module):
  features: int
  kind: common.Family  # with an `order` and a `polynomial`
  parts: Parts

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    c, shape = self.kind, (x.shape[-1], self.kind.order + 1, self.features)
    start = common.scaled(c, nn.initializers.normal(1 / (shape[0] * shape[1])))
    c_IxSxO = self.param('coefficients', start, shape, self.parts.param_dtype)
    basis = polynomial_basis(common.normalised(x, c, self.parts), c.order, c.polynomial)
    return mix(basis, c_IxSxO, x.dtype).astype(x.dtype)


AXES = lambda kind: {'coefficients': ('in', None, 'out'), **common.shared_axes(kind)}
NO_DECAY = common.shared_no_decay
MATRICES = ('coefficients',)
_jacobi = Polynomial('jacobi', order=1, data_norm='none')
CASES = (*(Polynomial(name) for name in RECURRENCES if name != 'jacobi'), _jacobi)


def truth(kind, x, p):
  x, n = common.true_norm(kind, x, p), kind.order
  size = np.sqrt([float(math.factorial(degree)) for degree in range(n + 1)])
  basis = {
    'chebyshev': lambda: chebyshev.chebvander(np.tanh(x), n),
    'legendre': lambda: legendre.legvander(np.tanh(x), n),
    'hermite': lambda: hermite_e.hermevander(x, n) / size,
    'laguerre': lambda: laguerre.lagvander(np.logaddexp(0, x), n),
    'jacobi': lambda: _true_jacobi(np.tanh(x), n),
  }[kind.polynomial]
  return common.true_mix(basis(), p)


def _true_jacobi(x: np.ndarray, degree: int) -> np.ndarray:
  """With both parameters 1 they are slopes of Legendre's: P_n = 2 / (n + 2) L'_(n+1)."""
  slopes = [legendre.Legendre.basis(n + 1).deriv() for n in range(degree + 1)]
  return np.stack([2 / (n + 2) * slope(x) for n, slope in enumerate(slopes)], -1)
