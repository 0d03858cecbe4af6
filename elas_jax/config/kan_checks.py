"""Which Kolmogorov-Arnold configs can be: the others are refused by name."""

from typing import Any

import numpy as np

from elas_jax.common.errors import UserError
from elas_jax.common.limits import SMALLEST_FLOAT, quoted, shown
from elas_jax.config.config import KanConfig
from elas_jax.ops.kan.af import COMBINATIONS, FUNCTIONS, REDUCTIONS
from elas_jax.ops.kan.base import ACTIVATIONS
from elas_jax.ops.kan.polynomial import RECURRENCES
from elas_jax.ops.kan.selection import PHASES
from elas_jax.ops.kan.skan import EDGES
from elas_jax.ops.kan.wavelet import WAVELETS

# Families whose bases are spread over a grid of intervals, `order` of which they overlap.
SPLINES = ('bspline', 'bsrbf', 'relu', 'af')
# What a selectable layer can choose from.
POOL = (*SPLINES, 'chebyshev', 'fourier', 'wavelet', 'fast', 'faster', 'polynomial', 'skan')

CHOICES = {
  'activation': ACTIVATIONS,
  'function': FUNCTIONS,
  'combine': COMBINATIONS,
  'function_norm': ('none', 'example', 'batch'),
  'data_norm': ('layer', 'none'),
  'polynomial': RECURRENCES,
  'wavelet': WAVELETS,
  'edge': EDGES,
  'selection': ('layer', 'node'),
  'phase': PHASES,
  'param_dtype': ('float32', 'bfloat16'),
}


def check_kan(config: KanConfig, kind: str) -> None:
  """Refuses values that cannot be, naming field, value and what is accepted.

  `kind` is the family that the config is for: the order of a spline must fit its grid, the
  degree of a polynomial, the same field, need not.
  """
  for name, choices in CHOICES.items():
    value = getattr(config, name)
    if value not in choices:
      raise _refusal(config, name, f'one of {quoted(sorted(choices))}')
  _check_sizes(config, kind)
  _check_names(config, 'reduction', REDUCTIONS)
  pool = _check_names(config, 'pool', POOL)
  if not 1 <= config.top_k <= len(pool):
    raise _refusal(config, 'top_k', f'from 1 to {len(pool)}, the members of model.kan.pool')


def _check_sizes(config: KanConfig, kind: str) -> None:
  for name in ('grid', 'order'):
    if getattr(config, name) < 1:
      raise _refusal(config, name, 'at least 1')
  pool = config.pool.split(',') if kind == 'selectable' else [kind]
  if config.order > config.grid and set(pool) & set(SPLINES):
    raise _refusal(config, 'order', f'at most model.kan.grid={config.grid}')
  # Knots must differ in float32, `order` of them beyond either end, and so must squares of
  # their distance from 0.
  step = (config.grid_max - config.grid_min) / config.grid
  furthest = max(abs(config.grid_min), abs(config.grid_max)) + config.order * abs(step)
  least = max(float(np.spacing(np.float32(furthest))), SMALLEST_FLOAT**0.5)
  if step < least:
    raise _refusal(
      config,
      'grid_max',
      f'larger than model.kan.grid_min={config.grid_min} by at least '
      f'{least * config.grid:.3g}, or the {config.grid} intervals vanish in float32',
    )
  if config.init_scale < 0:
    raise _refusal(config, 'init_scale', 'at least 0')


def _check_names(config: KanConfig, field: str, choices: Any) -> list[str]:
  """The comma-separated names of a field: known ones, each once."""
  names = getattr(config, field).split(',')
  if len(set(names)) < len(names) or not set(names) <= set(choices):
    accepted = quoted(sorted(choices))
    raise _refusal(config, field, f'different names of {accepted}, joined by commas')
  return names


def _refusal(config: KanConfig, field: str, accepted: str) -> UserError:
  return UserError(f'model.kan.{field}={shown(getattr(config, field))}: must be {accepted}')
