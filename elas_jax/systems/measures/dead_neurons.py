"""Dead ReLU units, by the dynamic dead-neuron rate of AP (arXiv 2212.06145).

A unit is dead if its activation is zero for all valid inputs of the batch: statically, if
its incoming weights are all zero as well, as after pruning, and dynamically otherwise.

  dynamic_rate   dynamically dead units over all that are not statically dead
  static_rate    statically dead units over all
  alive_share    units that are not zero for some input, over all

by layer, of any activations that a layer sows, before 2:4 pruning; of functions that are
never zero, such as SiLU, no unit is dead. This is a reading of the paper: its formula was
not found, and the authors' released code does not compute the rate. Other ratios, such as
dynamically dead units over all, follow from the three. The rate falls with the size of the
batch, which in the paper is one of training.

The incoming weights of a feed-forward's unit are its columns of `up` and of `gate`, one of
which is enough if it is zero; of a classifier's those of the layer before the activation.
"""

import dataclasses
import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from elas_jax.systems.seen import in_order


@dataclasses.dataclass(frozen=True)
class DeadNeurons:
  sown: ClassVar[tuple[str, ...]] = ('activation',)
  title: ClassVar[str] = 'Dead neurons'
  shown: ClassVar[dict[str, str]] = {
    'dynamic_rate': 'dead {:.2%}',
    'static_rate': 'cut off {:.2%}',
  }

  def measure(self, seen: Any) -> dict[str, jax.Array]:
    found, matrices = [], seen.matrices()
    for path, y in seen.sown['activation'].items():
      valid = (seen.weights_of(y.shape[-2]) > 0).reshape((1,) * (y.ndim - 2) + (-1, 1))
      alive = ((y != 0) & valid).any(-2)
      rates = _rates(alive, _without_inputs(path, matrices, alive.shape))
      found.append({name: x.reshape(-1) for name, x in rates.items()})
    return {name: in_order([of[name] for of in found]) for name in found[0]}


def _rates(alive: jax.Array, cut_off: jax.Array) -> dict[str, jax.Array]:
  """Of units, the last axis."""
  static = ~alive & cut_off
  dynamic = ~alive & ~static
  return {
    'dynamic_rate': dynamic.sum(-1) / jnp.maximum((~static).sum(-1), 1),
    'static_rate': static.mean(-1),
    'alive_share': alive.mean(-1),
  }


def _without_inputs(path: str, matrices: Any, shape: tuple[int, ...]) -> jax.Array:
  """Of the units (N,) F: whether all weights of a map that leads to them are zero."""
  found = jnp.zeros(shape, bool)
  for module in _maps_before(path):
    own = [x for name, x in matrices.items() if f'{name}/'.startswith(f'{module}/')]
    to_units = [x for x in own if x[-1].shape[-1] == shape[-1]]
    columns = [(functools.reduce(jnp.matmul, x) == 0).all(-2) for x in to_units]
    if columns:
      found = found | functools.reduce(jnp.logical_and, columns)
  return found


def _maps_before(path: str) -> list[str]:
  """The paths of the maps whose outputs the activation at a path is computed of."""
  above, _, own = path.rpartition('/')
  if own.startswith('activation_'):
    name = own.removeprefix('activation_')
    return [f'{above}/{name}', f'{above}/layer_{name}']
  return [f'{path}/up', f'{path}/gate']


CASES = (DeadNeurons(),)


def truth(kind: DeadNeurons, seen: Any) -> dict[str, np.ndarray]:
  """Of networks whose weights are not zero: all that is dead is dynamically dead."""
  valid = seen.weights.reshape(-1) > 0
  alive = []
  for y_TxF in seen.layers('activation'):
    largest = np.abs(y_TxF[np.repeat(valid, len(y_TxF) // len(valid))]).max(0)
    alive.append(np.count_nonzero(largest) / len(largest))
  alive = np.array(alive)
  return {'dynamic_rate': 1 - alive, 'static_rate': 0 * alive, 'alive_share': alive}
