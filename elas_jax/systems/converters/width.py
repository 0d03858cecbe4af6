"""Feed-forwards cut to the F' hidden units with the largest weights (arXiv 2512.22671).

The score of unit k is a sum over the maps that make it, gate and up of a gated feed-forward
(D, F):

  peak_to_peak   max_i W[i, k] + |min_i W[i, k]|
  largest        max_i |W[i, k]|

The first is what the author's code computes (peremartra/optipfair, whose option is 'MAW')
and what later versions of the paper write, the second the formula of its first version. Of
each layer the F' = ceil(ratio D) units of largest score stay, in their order, of equal ones
the first. Columns of gate and up go, with their biases, and rows of down; nothing is made
good for. The paper trains nothing afterwards.

Seven ratios F / D of Llama-3.2-1B and 3B are published, from 4.0, and 2.67, down by 10 % of
the units each to 40 % of them. An ungated feed-forward is scored by its one first map,
which is ours. Factors of linear maps are scored by their product and cut on one side each.
"""

import dataclasses
import math
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from elas_jax.common.errors import UserError
from elas_jax.common.fields import above
from elas_jax.common.limits import quoted
from elas_jax.systems.converters.common import Given, with_hidden
from elas_jax.systems.feed_forwards import FEED_FORWARDS
from elas_jax.systems.feed_forwards.glu import GLU
from elas_jax.systems.feed_forwards.mlp import MLP
from elas_jax.systems.feed_forwards.relu2_two_four import TwoFourSquaredReLU
from elas_jax.systems.kinds import axes, name_of
from elas_jax.systems.linears import LINEARS
from elas_jax.systems.linears.common import merged
from elas_jax.systems.linears.dense import Dense

CUT = GLU, MLP, TwoFourSquaredReLU
FIRST, LAST = ('gate', 'up'), 'down'


@dataclasses.dataclass(frozen=True)
class Width:
  ratio: float = 2.4  # of the new F to D; published 4.0 to 1.6 in steps of 0.4
  # Of a unit: as in the code and version 3 of the paper, or in version 1.
  score: Literal['peak_to_peak', 'largest'] = 'peak_to_peak'

  equal: ClassVar[bool] = False

  def check(self, where: str, config: Any) -> None:
    above(0, where, self, 'ratio')
    check_feed_forwards(config, CUT)
    linear = config.model.linear
    if not _can_be_cut(linear):
      accepted = (name for name, kind in LINEARS.items() if _can_be_cut(kind))
      raise UserError(
        f'model.linear={name_of(LINEARS, linear)!r}: must be one of {quoted(accepted)} for '
        'feed-forwards to be cut'
      )
    name, now = config.model.hidden
    if self.hidden(config.model.width) >= now:
      raise UserError(
        f'{where}.ratio={self.ratio!r}: must be below {now / config.model.width:g}, that '
        f'of {name}={now} to model.width={config.model.width}'
      )
    self.config(where, config)

  def config(self, where: str, config: Any) -> Any:
    hidden = self.hidden(config.model.width)
    return with_hidden(config, hidden, f'{where}.ratio={self.ratio!r}')

  def hidden(self, width: int) -> int:
    return math.ceil(self.ratio * width - 1e-9)  # 2.4 * 5 is 12

  def convert(self, given: Given) -> tuple[Any, dict[str, Any]]:
    model = given.config.model
    config, F = self.config('converter', given.config), self.hidden(model.width)
    given.check(config)
    flat = {part: flatten_dict(x, sep='/') for part, x in given.variables.items()}
    for path, names in feed_forwards(given.linear_maps).items():
      arrays = {
        name: _arrays(flat, f'{path}/{name}', model.linear) for name in (*names, LAST)
      }
      scores = sum(self.scores(model.linear, arrays[name]) for name in names)
      keep_NxF = np.sort(np.argsort(-scores, -1, kind='stable')[..., :F], -1)
      for name, p in arrays.items():
        side = 'in' if name == LAST else 'out'
        for below, x in p.items():
          cut = _cut(x, axes(model.linear)[below], side, keep_NxF)
          part = 'params' if f'{path}/{name}/{below}' in flat['params'] else 'buffers'
          flat[part][f'{path}/{name}/{below}'] = cut
      left = np.take_along_axis(scores, keep_NxF, -1).sum() / scores.sum()
      given.say(f'{path}: {scores.shape[-1]} units -> {F}, with {left:.2%} of the scores')
    return config, {part: unflatten_dict(x, sep='/') for part, x in flat.items()}

  def scores(self, linear: Any, p: dict[str, jax.Array]) -> np.ndarray:
    """(..., F) of one of the first maps, float32."""
    w = np.asarray(merged(linear, p) if hasattr(linear, 'merged') else p['kernel'])
    w = w.astype(np.float32)
    if self.score == 'largest':
      return np.abs(w).max(-2)
    return w.max(-2) + np.abs(w.min(-2))


def check_feed_forwards(config: Any, accepted: tuple[type, ...]) -> None:
  """Refuses a model without feed-forwards, or with others than these."""
  model = config.model
  if not model.stack:
    raise UserError(
      "model.architecture: must be 'vit', or the task 'language', to have feed-forwards"
    )
  for layer in model.stack.cycle:
    if type(layer.feed_forward) not in accepted:
      names = (name for name, kind in FEED_FORWARDS.items() if kind in accepted)
      raise UserError(
        f'model.feed_forward={name_of(FEED_FORWARDS, layer.feed_forward)!r}: must be one '
        f'of {quoted(names)} to lose hidden units'
      )


def feed_forwards(linear_maps: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
  """Path of each feed-forward -> the names of its first maps."""
  found: dict[str, tuple[str, ...]] = {}
  for path in linear_maps:
    where, _, name = path.rpartition('/')
    if where.endswith('feed_forward') and name in FIRST:
      found[where] = (*found.get(where, ()), name)
  return found


def _can_be_cut(linear: Any) -> bool:
  """A product with one matrix, every array of which has its inputs or outputs on a side."""
  if not hasattr(linear, 'merged') and linear not in (Dense, Dense()):
    return False
  return all(any(roles) for name, roles in axes(linear).items() if name != 'bias')


def _arrays(flat: dict[str, Any], path: str, linear: Any) -> dict[str, jax.Array]:
  """Parameters and buffers of a map, by their paths below it."""
  both = flat['params'] | flat['buffers']
  return {name: both[f'{path}/{name}'] for name in axes(linear) if f'{path}/{name}' in both}


def _cut(
  x: jax.Array, roles: tuple[str | None, ...], side: str, keep_NxF: np.ndarray
) -> jax.Array:
  """An array with these units of that side, where it has it: a bias is of the outputs."""
  roles = ('out',) if roles == (None,) else roles
  if side not in roles:
    return x
  axis = roles.index(side) - len(roles) + x.ndim
  if keep_NxF.ndim == 1:
    return jnp.take(x, keep_NxF, axis)
  return jax.vmap(lambda one, keep: jnp.take(one, keep, axis - 1))(x, keep_NxF)


CASES = (Width(1.0), Width(1.5, 'largest'))
# No truth: scores and what is left are compared with NumPy's in tests/systems/converters.
