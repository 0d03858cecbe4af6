"""Neural codes: which units are active, as a hash of the input (arXiv 2101.05490).

The code of an input in a layer is 1[activation > 0] of its units. Over the n valid inputs
of the batch, which are tokens, or examples, then with all of their patches or positions:

  redundancy         (n - number of different codes) / n, by layer
  constant_share     share of a layer's units that are the same for all inputs
  joint_redundancy   redundancy of the codes of all layers joined, the published number

0 means that each input has a code of its own. Checked against the authors' code, which
drops constant units first: these tell no two codes apart.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from elas_jax.systems.seen import in_order

BITS = 32  # of a word


@dataclasses.dataclass(frozen=True)
class Codes:
  sown: ClassVar[tuple[str, ...]] = ('activation',)
  title: ClassVar[str] = 'Neural codes'
  shown: ClassVar[dict[str, str]] = {
    'joint_redundancy': 'codes redundant {:.1%}',
    'constant_share': 'units constant {:.1%}',
  }

  def measure(self, seen: Any) -> dict[str, jax.Array]:
    valid_U, numbers, constant = seen.weights.reshape(-1) > 0, [], []
    for y in seen.sown['activation'].values():
      entries = y.shape[-2] * y.shape[-1] // len(valid_U)
      codes_NxUxF = (y > 0).reshape(-1, len(valid_U), entries)
      numbers.append(jax.vmap(_numbers)(codes_NxUxF))
      constant.append(jax.vmap(_constant, (0, None))(codes_NxUxF, valid_U))
    redundancy = lambda numbers_U: _redundancy(numbers_U, valid_U)
    return {
      'redundancy': in_order([jax.vmap(redundancy)(x) for x in numbers]),
      'constant_share': in_order(constant),
      'joint_redundancy': redundancy(_refined(jnp.concatenate(numbers))),
    }


def _constant(code_UxF: jax.Array, valid_U: jax.Array) -> jax.Array:
  """The share of units that are on, or off, for all valid inputs."""
  on = lambda code_UxF: (code_UxF & valid_U[:, None]).any(0)
  return (~(on(code_UxF) & on(~code_UxF))).mean()


def _numbers(code_UxF: jax.Array) -> jax.Array:
  """(U,), from 0: the same number where, and only where, codes are the same."""
  U, F = code_UxF.shape
  padded = jnp.pad(code_UxF, ((0, 0), (0, -F % BITS))).reshape(U, -1, BITS)
  place = jnp.arange(BITS, dtype=jnp.uint32).reshape(1, 1, -1)
  words_UxW = (padded.astype(jnp.uint32) << place).sum(-1, dtype=jnp.uint32)
  return _refined(words_UxW.T)


def _refined(words_WxU: jax.Array) -> jax.Array:
  """The numbers of the columns, from their words one after the other: exact."""

  def refine(numbers_U: jax.Array, word_U: jax.Array) -> tuple[jax.Array, None]:
    order = jnp.lexsort((word_U, numbers_U))
    sorted_2xU = jnp.stack([numbers_U[order], word_U.astype(jnp.uint32)[order]])
    new = (sorted_2xU[:, 1:] != sorted_2xU[:, :-1]).any(0)
    counted = jnp.cumsum(jnp.pad(new, (1, 0)), dtype=jnp.uint32)
    return jnp.zeros_like(counted).at[order].set(counted), None

  start = jnp.zeros(words_WxU.shape[1], jnp.uint32)
  return jax.lax.scan(refine, start, words_WxU)[0]


def _redundancy(numbers_U: jax.Array, valid_U: jax.Array) -> jax.Array:
  different = jnp.zeros_like(valid_U).at[numbers_U].max(valid_U).sum()
  count = valid_U.sum()
  return (count - different) / jnp.maximum(count, 1)


CASES = (Codes(),)


def truth(kind: Codes, seen: Any) -> dict[str, np.ndarray]:
  valid = seen.weights.reshape(-1) > 0
  codes = [y.reshape(len(valid), -1)[valid] > 0 for y in seen.layers('activation')]
  different = lambda code: len({tuple(row) for row in code.tolist()})
  count = valid.sum()
  return {
    'redundancy': np.array([1 - different(code) / count for code in codes]),
    'constant_share': np.array([np.mean(np.ptp(code * 1, 0) == 0) for code in codes]),
    'joint_redundancy': np.array(1 - different(np.hstack(codes)) / count),
  }
