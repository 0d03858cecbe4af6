"""What the Kolmogorov-Arnold kinds share: checks, starts, places in a network, truths.

Letters: I inputs, O outputs, S bases of each input. Bases are computed in float32, products
in the input's dtype; results have that dtype.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from elas_jax.common.errors import UserError
from elas_jax.common.fields import at_least
from elas_jax.common.limits import SMALLEST_FLOAT, quoted, shown
from elas_jax.ops.kan.patches import patches
from elas_jax.systems import kinds
from elas_jax.systems.activations import ACTIVATIONS

EPSILON = 1e-5  # of the LayerNorm
# The published uniform starts, over inputs and bases together, for (I, S, O).
KAIMING_ISxO = nn.initializers.variance_scaling(
  1 / 3, 'fan_in', 'uniform', in_axis=(0, 1), out_axis=2
)
XAVIER_ISxO = nn.initializers.xavier_uniform(in_axis=(0, 1), out_axis=2)


class Family:
  """A kind whose layer is the `Module(features, kind, parts)` of its own file.

  `data_norm` and `init_scale`, which all have, are the LayerNorm of the inputs and a factor
  of the coefficients' published start.
  """

  # Where parts.nested, the layer is a module of this name inside of the map's own.
  nested: ClassVar[str] = 'kan'

  def bases(self) -> int:
    """S: a row of I inputs becomes I S numbers on its way."""
    raise NotImplementedError

  def layer(self, features: int, parts: kinds.Parts, name: str) -> nn.Module:
    """(..., I) -> (..., features)."""
    return kinds.room(self).Module(features, self, parts, name=name)

  def make(self, features: int, parts: kinds.Parts, name: str) -> nn.Module:
    """The same, with the paths that a decoder or a classifier has."""
    if parts.nested:
      return Nested(features, self, parts, name=name)
    return self.layer(features, parts, name)

  def convolve(
    self,
    features: int,
    kernel: tuple[int, int],
    stride: int,
    parts: kinds.Parts,
    name: str,
  ) -> nn.Module:
    """(B, H, W, C) -> (B, H / stride, W / stride, features)."""
    return Convolution(features, self, parts, kernel, stride, name=name)


class Nested(nn.Module):
  features: int
  kind: Family
  parts: kinds.Parts

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    return self.kind.layer(self.features, self.parts, self.kind.nested)(x)


class Convolution(nn.Module):
  """A KAN of every patch: (B, H, W, C) -> (B, H / stride, W / stride, features).

  With the selectable kind it is S-ConvKAN. Beyond the border x is 0, which a KAN does not
  in general map to 0.
  """

  features: int
  kind: Family
  parts: kinds.Parts
  kernel: tuple[int, int]  # sides of the patches
  stride: int

  @nn.compact
  def __call__(self, x_BxHxWxC: jax.Array) -> jax.Array:
    rows = patches(x_BxHxWxC, self.kernel, self.stride)
    return self.kind.layer(self.features, self.parts, self.kind.nested)(rows)


def uniform(fan_in: int) -> Callable:
  """Uniform within sqrt(1 / fan_in), for biases and vectors."""
  bound = fan_in**-0.5
  return lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -bound, bound)


def constant(values: Any) -> Callable:
  return lambda _, shape, dtype: jnp.broadcast_to(jnp.asarray(values, dtype), shape)


def scaled(kind: Any, init: Callable) -> Callable:
  return lambda key, shape, dtype: kind.init_scale * init(key, shape, dtype)


def normalised(x: jax.Array, kind: Any, parts: kinds.Parts) -> jax.Array:
  """In float32, after the LayerNorm of the module that calls this, if there is one."""
  x = x.astype(jnp.float32)
  if kind.data_norm == 'none':
    return x
  dtypes = {'dtype': jnp.float32, 'param_dtype': parts.param_dtype}
  return nn.LayerNorm(EPSILON, use_fast_variance=False, name='norm', **dtypes)(x)


def activation(kind: Any, parts: kinds.Parts) -> Callable:
  """That of the kind, as a child of the module that calls this if it has parameters."""
  return kind.activation.make(parts, name='activation')


def shared_axes(kind: Any) -> kinds.Axes:
  """Of the LayerNorm and the activation; each device has all of them, as of all vectors."""
  found = {}
  if kind.data_norm == 'layer':
    found |= {'norm/scale': (None,), 'norm/bias': (None,)}
  if hasattr(kind, 'activation'):
    own = kinds.axes(kind.activation).items()
    found |= {f'activation/{path}': (None,) * len(roles) for path, roles in own}
  return found


def shared_no_decay(kind: Any) -> tuple[str, ...]:
  norm = ('norm/scale', 'norm/bias') if kind.data_norm == 'layer' else ()
  own = kinds.no_decay(kind.activation) if hasattr(kind, 'activation') else ()
  return norm + tuple(f'activation/{path}' for path in own)


def check_family(where: str, kind: Any) -> None:
  """Refuses the shared fields' values that cannot be; a kind need not have all of them."""
  if hasattr(kind, 'activation'):
    _check_activation(f'{where}.activation', kind.activation)
  for name in ('grid', 'order'):
    if hasattr(kind, name):
      at_least(1, where, kind, name)
  if hasattr(kind, 'grid_min'):
    _check_range(where, kind)
  at_least(0, where, kind, 'init_scale')


def _check_activation(where: str, kind: Any) -> None:
  """A Kolmogorov-Arnold layer is a sum of functions of one number each."""
  mixes = lambda kind: kinds.about(kind, 'mixes_features', default=False)
  if mixes(kind):
    accepted = quoted(name for name, cls in ACTIVATIONS.items() if not mixes(cls()))
    raise UserError(
      f'{where}={kinds.name_of(ACTIVATIONS, kind)!r}: must be a function of single '
      f'numbers, one of {accepted}'
    )


def check_order(where: str, kind: Any) -> None:
  """Of `order` + 1 intervals that a base is spread over, only one may be beyond the grid.

  That of splines; the degree of a polynomial, the same field, has no grid.
  """
  if kind.order > kind.grid:
    raise _refusal(where, kind, 'order', f'at most {where}.grid={kind.grid}')


def check_names(where: str, kind: Any, field: str, choices: Any) -> list[str]:
  """The comma-separated names of a field: known ones, each once."""
  names = getattr(kind, field).split(',')
  if len(set(names)) < len(names) or not set(names) <= set(choices):
    accepted = quoted(sorted(choices))
    raise _refusal(where, kind, field, f'different names of {accepted}, joined by commas')
  return names


def _check_range(where: str, kind: Any) -> None:
  """Knots must differ in float32, `order` of them beyond either end.

  And so must squares of their distance from 0.
  """
  step = (kind.grid_max - kind.grid_min) / kind.grid
  beyond = getattr(kind, 'order', 0) * abs(step)
  furthest = max(abs(kind.grid_min), abs(kind.grid_max)) + beyond
  least = max(float(np.spacing(np.float32(furthest))), SMALLEST_FLOAT**0.5)
  if step < least:
    raise _refusal(
      where,
      kind,
      'grid_max',
      f'larger than {where}.grid_min={kind.grid_min} by at least '
      f'{least * kind.grid:.3g}, or the {kind.grid} intervals vanish in float32',
    )


def _refusal(where: str, kind: Any, field: str, accepted: str) -> UserError:
  return UserError(f'{where}.{field}={shown(getattr(kind, field))}: must be {accepted}')


# Truths, in NumPy float64.


def true_norm(kind: Any, x: np.ndarray, p: dict) -> np.ndarray:
  if kind.data_norm == 'none':
    return x
  centred = x - x.mean(-1, keepdims=True)
  spread = np.sqrt(np.square(centred).mean(-1, keepdims=True) + EPSILON)
  return centred / spread * p['norm']['scale'] + p['norm']['bias']


def true_activation(kind: Any, x: np.ndarray, p: dict) -> np.ndarray:
  return kinds.room(kind.activation).truth(kind.activation, x, p.get('activation', {}))


def true_mix(basis: np.ndarray, p: dict) -> np.ndarray:
  """Sum over inputs and bases of basis_is c_iso."""
  return np.einsum('...is,iso->...o', basis, p['coefficients'])
