"""sum over a pool of KAN families of softmax(theta)_m y_m (after S-KAN, arXiv 2408.08338).

Our reading: the paper's formula and schedule are not known to us. `phase` narrows the sum
from the whole pool to its top_k and to the best; parameters are those of all phases, so
one run goes on from another. The choice is read off theta at each call. To save the time
of the losers, take the winner's parameters into a layer of that family. Of the fields
below top_k each member gets those that it has.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import numpy as np

from elas_jax.common.errors import UserError
from elas_jax.ops.kan.af import COMBINATIONS, FUNCTIONS, REDUCTIONS
from elas_jax.ops.kan.polynomial import RECURRENCES
from elas_jax.ops.kan.selection import PHASES, select, selection_weights
from elas_jax.ops.kan.skan import EDGES
from elas_jax.ops.kan.wavelet import WAVELETS
from elas_jax.systems import kinds
from elas_jax.systems.activations import ACTIVATIONS
from elas_jax.systems.linears import kan_common as common
from elas_jax.systems.linears.kan_af import AF
from elas_jax.systems.linears.kan_bspline import BSpline
from elas_jax.systems.linears.kan_bsrbf import BSRBF
from elas_jax.systems.linears.kan_chebyshev import Chebyshev
from elas_jax.systems.linears.kan_fast import Fast
from elas_jax.systems.linears.kan_faster import Faster
from elas_jax.systems.linears.kan_fourier import Fourier
from elas_jax.systems.linears.kan_polynomial import Polynomial
from elas_jax.systems.linears.kan_relu import ReLUKAN
from elas_jax.systems.linears.kan_skan import SKAN
from elas_jax.systems.linears.kan_wavelet import Wavelet

FAMILIES = {
  'bspline': BSpline,
  'bsrbf': BSRBF,
  'relu': ReLUKAN,
  'af': AF,
  'chebyshev': Chebyshev,
  'fourier': Fourier,
  'wavelet': Wavelet,
  'fast': Fast,
  'faster': Faster,
  'polynomial': Polynomial,
  'skan': SKAN,
}


@dataclasses.dataclass(frozen=True)
class Selectable(common.Family):
  pool: str = 'bspline,chebyshev,wavelet,fast'  # families without kan_; ours
  selection: Literal['layer', 'node'] = 'layer'  # one choice for all outputs, or for each
  phase: Literal[PHASES] = 'full'  # all families, the top_k, or the best
  top_k: int = 2  # families of the phase 'selective'; ours
  grid: int = 5  # intervals, centres, wavelets or frequencies of the members
  order: int = 3  # of splines, relu and af (at most grid); degree of polynomials
  grid_min: float = -1.0  # where the members' range starts
  grid_max: float = 1.0  # where it ends
  activation: Any = kinds.section(ACTIVATIONS, 'silu')  # of af and of base branches
  function: Literal[tuple(FUNCTIONS)] = 'quad1'  # of af
  reduction: str = 'global_attn'  # of af, joined by commas
  combine: Literal[tuple(COMBINATIONS)] = 'sum'  # of af
  function_norm: Literal['none', 'example', 'batch'] = 'example'  # of af
  polynomial: Literal[tuple(RECURRENCES)] = 'legendre'  # of polynomial
  wavelet: Literal[tuple(WAVELETS)] = 'mexican_hat'  # of wavelet
  edge: Literal[tuple(EDGES)] = 'arctan'  # of skan
  data_norm: Literal['layer', 'none'] = 'layer'  # LayerNorm of each member's inputs
  init_scale: float = 1.0  # factor of the coefficients' start of each member

  def check(self, where: str, config: Any) -> None:
    common.check_family(where, self)
    common.check_names(where, self, 'reduction', REDUCTIONS)
    pool = common.check_names(where, self, 'pool', FAMILIES)
    if not 1 <= self.top_k <= len(pool):
      raise UserError(
        f'{where}.top_k={self.top_k}: must be from 1 to {len(pool)}, the members of '
        f'{where}.pool'
      )
    for member in self.members().values():
      member.check(where, config)

  def members(self) -> dict[str, common.Family]:
    """The families of the pool by name, with those fields of this kind that they have."""
    own = {field.name for field in dataclasses.fields(self)}
    shared = lambda family: own & {field.name for field in dataclasses.fields(family)}
    return {
      name: FAMILIES[name](**{f: getattr(self, f) for f in shared(FAMILIES[name])})
      for name in self.pool.split(',')
    }

  def bases(self) -> int:
    return max(member.bases() for member in self.members().values())

  def mixes_rows(self) -> str:
    members = self.members().values()
    fields = (kinds.about(member, 'mixes_rows', default='') for member in members)
    return next(filter(None, fields), '')


class Module(nn.Module):
  features: int
  kind: Selectable
  parts: kinds.Parts

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    c, members = self.kind, self.kind.members()
    nodes = (self.features,) if c.selection == 'node' else ()
    zeros, shape = nn.initializers.zeros, (len(members), *nodes)
    theta = self.param('theta', zeros, shape, self.parts.param_dtype)
    layers = [m.layer(self.features, self.parts, name) for name, m in members.items()]
    ys = [layer(x) for layer in layers]
    return select(ys, selection_weights(theta, c.phase, c.top_k)).astype(x.dtype)


def AXES(kind):
  found = {'theta': (None, None) if kind.selection == 'node' else (None,)}
  for name, member in kind.members().items():
    found |= {f'{name}/{path}': roles for path, roles in kinds.axes(member).items()}
  return found


def _below(kind: Selectable, paths_of: Callable) -> tuple[str, ...]:
  members = kind.members().items()
  return tuple(f'{name}/{path}' for name, member in members for path in paths_of(member))


NO_DECAY = lambda kind: _below(kind, kinds.no_decay)
# Of all members in every phase: all of them are computed.
MATRICES = lambda kind: _below(kind, kinds.matrices)
# First the one that compiles soonest: make test takes the first of each kind.
CASES = (
  Selectable(pool='bspline,relu,skan', selection='node', phase='selective'),
  Selectable(),
  # The families that are not in the other two: all in one take a minute to train in tests.
  Selectable(pool='bsrbf,af,fourier,faster,polynomial', phase='pruned', data_norm='none'),
)


def truth(kind, x, p):
  members = kind.members()
  count = {'full': len(members), 'selective': kind.top_k, 'pruned': 1}[kind.phase]
  # The largest theta win; of equal ones the earlier.
  place = np.argsort(np.argsort(-p['theta'], 0, kind='stable'), 0)
  e = np.where(place < count, np.exp(p['theta']), 0)
  weights = e / e.sum(0)
  truth_of = lambda name, member: kinds.room(member).truth(member, x, p[name])
  ys = [truth_of(name, member) for name, member in members.items()]
  return sum(weight * y for weight, y in zip(weights, ys))
