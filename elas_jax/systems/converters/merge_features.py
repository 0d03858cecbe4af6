"""Hidden units with alike weights made into one, pair by pair (IFM, arXiv 2310.06756).

For the hidden units of a layer, those of a feed-forward or the channels of a convnet's or a
stack's layer, D_ij = ||w_i - w_j||^2 is the sum over all matrices that carry them, of the
rows that make them and of the columns that read them. Iterative Feature Merging takes in
each round of each layer the pair with the smallest D and merges it, unless that is above
beta times the largest; a unit that stands for c others counts c:

  w_in = w_in_i + w_in_j,   w_out = (c_i w_out_i + c_j w_out_j) / (c_i + c_j)

with biases as w_in, until no layer has such a pair: no data, no training. The units left
are the layer's feature complexity, which is said. Checked against the authors' code
(Ytchen981/Iterative-Feature-Merging), of which beta is the option --threshold.

Doubled rows double a unit only where the activation scales with its input (relu), and then
exact duplicates merge without loss. `summed` 'columns' is ours, lossless for any activation
and for gates: rows are averaged so, and columns summed. A batch norm between, which the
code merges as it is and not without loss, is refused: fold it into the weights first.

All layers of our models have one width. So they are merged in step, a pair of each in every
round, and the model has the width at which the first of them had no pair left; what each
comes to alone, as the authors merge them, is only said. The F of a vit is a multiple of D,
so there it is the last one before that is.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from elas_jax.common.errors import UserError
from elas_jax.common.fields import inside
from elas_jax.common.limits import quoted
from elas_jax.systems.activations import ACTIVATIONS
from elas_jax.systems.architectures import ARCHITECTURES
from elas_jax.systems.architectures.convnet import ConvNet
from elas_jax.systems.architectures.stack import Stack
from elas_jax.systems.converters.common import Given, with_hidden, with_model
from elas_jax.systems.converters.width import LAST, check_feed_forwards, feed_forwards
from elas_jax.systems.feed_forwards.glu import GLU
from elas_jax.systems.feed_forwards.mlp import MLP
from elas_jax.systems.kinds import about, name_of
from elas_jax.systems.linears import LINEARS
from elas_jax.systems.linears.dense import Dense
from elas_jax.systems.norms import NORMS

SCALING = ('none', 'relu', 'leaky_relu')  # activations with f(a x) = a f(x) for a >= 0
Key = tuple[str, int | None]  # path of an array, and the layer where it is of several
Arrays = dict[Key, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Units:
  """The hidden units of one layer.

  Attributes:
    name: of the layer.
    rows: the arrays that make them, whose last axis they are.
    columns: the matrices that read them, whose axis before the last they are.
  """

  name: str
  rows: tuple[Key, ...]
  columns: tuple[Key, ...]


@dataclasses.dataclass(frozen=True)
class MergeFeatures:
  beta: float = 0.1  # D of a pair over the largest, at most; published 0.001 to 0.3
  summed: Literal['rows', 'columns'] = 'rows'  # what of a pair is; the others are averaged

  equal: ClassVar[bool] = False

  def check(self, where: str, config: Any) -> None:
    inside(where, self, 'beta')
    model = config.model
    if not isinstance(model.linear, Dense):
      raise UserError(
        f"model.linear={name_of(LINEARS, model.linear)!r}: must be 'dense' for units to be "
        'merged; the converter merge makes factors so'
      )
    if model.stack:
      check_feed_forwards(config, (GLU, MLP))
      for layer in model.stack.cycle:
        gated = isinstance(layer.feed_forward, GLU)
        self._check_scaling(where, layer.feed_forward.activation, gated)
      return
    if type(model.architecture) not in (ConvNet, Stack) or not model.depth:
      name = name_of(ARCHITECTURES, model.architecture)
      raise UserError(
        f"model.architecture={name!r}: must be 'convnet', 'vit', or 'stack' with a hidden "
        'layer, to have units that one layer alone reads'
      )
    if not isinstance(model.norm, NORMS['none']):
      raise UserError(
        f"model.norm={name_of(NORMS, model.norm)!r}: must be 'none', since it stands "
        'between units and what reads them'
      )
    self._check_scaling(where, model.activation, False)

  def _check_scaling(self, where: str, activation: Any, gated: bool) -> None:
    name = name_of(ACTIVATIONS, activation)
    if about(activation, 'mixes_features', default=False):
      raise UserError(
        f'{where}: the activation {name!r} must be another, since in its outputs units are '
        'mixed'
      )
    if self.summed == 'rows' and (gated or name not in SCALING):
      what = "a feed-forward 'glu'" if gated else f'the activation {name!r}'
      raise UserError(
        f"{where}.summed='rows': must be 'columns' with {what}; only an ungated layer with "
        f'one of {quoted(SCALING)} gives twice as much for rows that are doubled'
      )

  def convert(self, given: Given) -> tuple[Any, dict[str, Any]]:
    params, model = flatten_dict(given.variables['params'], sep='/'), given.config.model
    layers = _units(given, params)
    arrays: Arrays = {}
    for path, n in (key for one in layers for key in (*one.rows, *one.columns)):
      arrays[path, n] = np.float64(params[path] if n is None else params[path][n])
    fits = lambda width: True
    if hasattr(model, 'architecture') and model.stack:
      fits = lambda width: width % model.width == 0
    merged, complexity = merge(arrays, layers, self.beta, self.summed, fits)
    before, width = (x[layers[0].rows[0]].shape[-1] for x in (arrays, merged))
    found = ', '.join(f'{name} {count}' for name, count in complexity.items())
    given.say(f'feature complexity, of {before} units each: {found}')
    given.say(f'{before} units -> {width}, merged in step')
    for path in dict.fromkeys(path for path, _ in merged):
      layered = [x for (of, n), x in merged.items() if of == path and n is not None]
      x = np.stack(layered) if layered else merged[path, None]
      params[path] = jnp.asarray(x, params[path].dtype)
    config = (
      with_hidden(given.config, width, 'converter.beta')
      if model.stack
      else with_model(given.config, width=width)
    )
    return config, given.variables | {'params': unflatten_dict(params, sep='/')}


def _units(given: Given, params: dict[str, Any]) -> tuple[Units, ...]:
  """Of all layers: feed-forwards, which are stacked, or layers that follow one another."""
  with_bias = lambda path: [
    f'{path}/{name}' for name in ('kernel', 'bias') if f'{path}/{name}' in params
  ]
  if given.config.model.stack:
    found = []
    for where, names in feed_forwards(given.linear_maps).items():
      rows = [path for name in names for path in with_bias(f'{where}/{name}')]
      down = f'{where}/{LAST}/kernel'
      for n in range(len(params[down])):
        found.append(Units(f'{where}[{n}]', tuple((x, n) for x in rows), ((down, n),)))
    return tuple(found)
  names = [*(f'layer_{n}' for n in range(given.config.model.depth)), 'head']
  return tuple(
    Units(
      f'network/{name}',
      tuple((path, None) for path in with_bias(f'network/{name}')),
      ((f'network/{after}/kernel', None),),
    )
    for name, after in zip(names, names[1:])
  )


def merge(
  arrays: Arrays,
  layers: tuple[Units, ...],
  beta: float,
  summed: str,
  fits: Callable[[int], bool],
) -> tuple[Arrays, dict[str, int]]:
  """Rounds of merging, a pair of each layer, until none has one.

  Returns:
    The arrays of the last round in which all layers had a pair and their width `fits`, and
    the units that each layer is left with at the end, by its name.
  """
  now = in_step = dict(arrays)
  counts = {one.name: np.ones(now[one.rows[0]].shape[-1]) for one in layers}
  together = True
  while True:
    merged = 0
    for one in layers:
      if pair := closest(distances(now, one), beta):
        now, counts[one.name] = joined(now, one, pair, counts[one.name], summed)
        merged += 1
    if not merged:
      return in_step, {name: len(count) for name, count in counts.items()}
    together = together and merged == len(layers)
    if together and fits(len(counts[layers[0].name])):
      in_step = now


def distances(arrays: Arrays, one: Units) -> np.ndarray:
  """D (F, F) of a layer's units, over the matrices that carry them."""
  of_rows = [(arrays[key], -1) for key in one.rows if arrays[key].ndim > 1]
  of_columns = [(arrays[key], -2) for key in one.columns]
  flat = [np.moveaxis(x, at, 0).reshape(x.shape[at], -1) for x, at in of_rows + of_columns]
  w = np.concatenate(flat, 1)
  products, squares = w @ w.T, np.square(w).sum(1)
  found = np.maximum(squares[:, None] + squares[None] - 2 * products, 0)
  # What rounding leaves of equal units is no distance.
  return np.where(found < 1e-12 * (squares[:, None] + squares[None]), 0, found)


def closest(D_FxF: np.ndarray, beta: float) -> tuple[int, int] | None:
  """The pair i < j that is nearest, the first of several; None if that is too far."""
  if len(D_FxF) < 2:
    return None
  apart = D_FxF + np.diag(np.full(len(D_FxF), np.inf))
  i, j = divmod(int(apart.argmin()), len(apart))
  return (i, j) if apart[i, j] <= beta * D_FxF.max() else None


def joined(
  arrays: Arrays, one: Units, pair: tuple[int, int], counts: np.ndarray, summed: str
) -> tuple[Arrays, np.ndarray]:
  """The arrays in which unit i stands for j as well, and j is not there."""
  i, j = pair
  share = counts[i] / (counts[i] + counts[j])
  adds = {'rows': one.rows, 'columns': one.columns}[summed]
  new = dict(arrays)
  for keys, axis in ((one.rows, -1), (one.columns, -2)):
    for key in keys:
      x = np.moveaxis(arrays[key], axis, 0)
      joint = x[i] + x[j] if key in adds else share * x[i] + (1 - share) * x[j]
      x = np.concatenate([x[:i], joint[None], x[i + 1 :]])
      new[key] = np.moveaxis(np.delete(x, j, 0), 0, axis)
  counts = counts.copy()
  counts[i] += counts[j]
  return new, np.delete(counts, j)


CASES = (MergeFeatures(0.7), MergeFeatures(0.7, 'columns'))
# No truth: rounds are compared with loops over pairs in tests/systems/converters.
