"""What pruners share: the weights of all linear maps, masks over them, the masked model.

Only linear maps of the model's linear kind are pruned, as in the papers' code: no
embedding, no head of a decoder, no norm, no bias, and of images no plain first and last
layer. Masks say what is kept, and are made on the host, where a tie is broken for sure: the
earlier of two goes, by the path of the map and then row by row.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from elas_jax.common.errors import UserError
from elas_jax.common.limits import quoted
from elas_jax.systems.converters.common import Given, with_model
from elas_jax.systems.converters.merge import Merge
from elas_jax.systems.kinds import name_of
from elas_jax.systems.linears import LINEARS
from elas_jax.systems.linears.dense import Dense
from elas_jax.systems.linears.masked import Masked

Arrays = dict[str, np.ndarray]  # by the path of a map: (I, O), (N, I, O) or (h, w, I, O)


def check_prunable(config: Any) -> None:
  """Refuses linear kinds that are no product with one matrix."""
  linear = config.model.linear
  if not isinstance(linear, Dense) and not hasattr(linear, 'merged'):
    names = (name for name, kind in LINEARS.items() if hasattr(kind, 'merged'))
    raise UserError(
      f'model.linear={name_of(LINEARS, linear)!r}: must be one of '
      f'{quoted(["dense", *names])} to be pruned'
    )


def dense_or_masked(given: Given) -> Given:
  """The same run, whose factors are multiplied into dense maps, if it has some."""
  if isinstance(given.config.model.linear, Dense | Masked):
    return given
  config, variables = Merge().convert(given)
  return dataclasses.replace(given, config=config, variables=variables)


def weights(given: Given) -> Arrays:
  """What the maps multiply by, float32; zero where they are masked."""
  params = flatten_dict(given.variables['params'], sep='/')
  found = {
    path: np.asarray(params[f'{path}/kernel'], np.float32)
    for path in sorted(given.linear_maps)
    if f'{path}/kernel' in params
  }
  return {path: np.where(alive, found[path], 0) for path, alive in masks(given).items()}


def masks(given: Given) -> Arrays:
  """What is alive: all of a dense map."""
  params, buffers = (
    flatten_dict(given.variables[part], sep='/') for part in ('params', 'buffers')
  )
  found = {}
  for path in sorted(given.linear_maps):
    if f'{path}/kernel' in params:
      shape = params[f'{path}/kernel'].shape
      found[path] = np.asarray(buffers.get(f'{path}/mask', np.ones(shape, bool)))
  return found


def smallest(scores: np.ndarray, count: int) -> np.ndarray:
  """Where the `count` smallest are, as booleans of the same shape."""
  flat = scores.reshape(-1)
  found = np.zeros(flat.shape, bool)
  if count:
    most = np.partition(flat, count - 1)[count - 1]
    found = flat < most
    found[np.flatnonzero(flat == most)[: count - found.sum()]] = True
  return found.reshape(scores.shape)


def smallest_of_all(scores: Arrays, count: int) -> Arrays:
  """Where the `count` smallest of all maps are."""
  flat = np.concatenate([x.reshape(-1) for x in scores.values()])
  found, start = smallest(flat, count), 0
  parts = {}
  for path, x in scores.items():
    parts[path] = found[start : start + x.size].reshape(x.shape)
    start += x.size
  return parts


def masked_run(given: Given, kept: Arrays) -> tuple[Any, dict[str, Any]]:
  """The config and variables in which only these weights are left, of those alive."""
  flat = {part: flatten_dict(x, sep='/') for part, x in given.variables.items()}
  alive = masks(given)
  for path, mask in kept.items():
    mask = mask & alive[path]
    kernel = flat['params'][f'{path}/kernel']
    flat['params'][f'{path}/kernel'] = jnp.where(mask, kernel, jnp.zeros((), kernel.dtype))
    flat['buffers'][f'{path}/mask'] = jnp.asarray(mask)
  config = with_model(given.config, linear=Masked())
  return config, {part: unflatten_dict(x, sep='/') for part, x in flat.items()}


def tell(given: Given, variables: dict[str, Any]) -> None:
  """Says the share of zeros of all maps, and of those with the least and the most."""
  buffers = flatten_dict(variables['buffers'], sep='/')
  zeros = {}
  for path in masks(given):
    mask = np.asarray(buffers[f'{path}/mask'])
    for name, one in layers(path, mask).items():
      zeros[name] = 1 - one.mean(), one.size
  share = sum(x * size for x, size in zeros.values()) / sum(s for _, s in zeros.values())
  least, most = (pick(zeros, key=zeros.get) for pick in (min, max))
  given.say(
    f'{share:.2%} of the weights of linear maps are zero: from {zeros[least][0]:.2%} of '
    f'{least} to {zeros[most][0]:.2%} of {most}'
  )


def layers(path: str, x: np.ndarray) -> Arrays:
  """A map for each of the layers that are stacked there."""
  return {f'{path}[{n}]': one for n, one in enumerate(x)} if x.ndim == 3 else {path: x}
