"""Which two of four entries are kept, and with which values.

A rule maps groups (..., 4), float32, to a mask of exactly two entries and the values that
the kept ones get. Nothing here knows about packing.
"""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Kept = tuple[jax.Array, jax.Array]  # mask and values, both of the shape of the groups


def _in_order(x: jax.Array) -> jax.Array:
  """Float32 as integers in the same order, NaN above infinity, as in the kernels."""
  bits = jax.lax.bitcast_convert_type(jnp.where(x == 0, 0, x), jnp.int32)
  return jnp.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


def largest_two(scores: jax.Array) -> jax.Array:
  """The mask of the two largest of the last axis's four; on ties the lower index.

  Exactly two, whatever the input: a NaN counts as the largest of all.
  """
  s = [_in_order(x) for x in jnp.moveaxis(scores.astype(jnp.float32), -1, 0)]
  # An entry is kept if fewer than two beat it.
  beaten = [jnp.zeros(scores.shape[:-1], jnp.int32) for _ in s]
  for i, j in itertools.combinations(range(4), 2):
    first = (s[i] >= s[j]).astype(jnp.int32)
    beaten[j] = beaten[j] + first
    beaten[i] = beaten[i] + (1 - first)
  return jnp.stack([count < 2 for count in beaten], axis=-1)


def top2(groups: jax.Array) -> Kept:
  """The two largest magnitudes, as they are."""
  return largest_two(jnp.abs(groups)), groups


def mvue(groups: jax.Array, key: jax.Array) -> Kept:
  """Minimum-variance unbiased sampling of two of four (arXiv 2203.10991).

  Two indices drawn without replacement with probabilities t_i = |a_i| / s, s = sum |a|,
  so that index i is among them with p_i = t_i + |a_i| sum_{j != i} t_j / (s - |a_j|);
  a kept entry becomes a_i / p_i. E[result] = groups.
  """
  a = jnp.abs(groups)
  # The Gumbel trick: the two largest of log t_i + noise are such a draw.
  chosen = largest_two(jnp.log(a) + jax.random.gumbel(key, a.shape, a.dtype))
  total = a.sum(axis=-1, keepdims=True)
  t = a / jnp.where(total > 0, total, 1)
  others = lambda x: (jnp.roll(x, shift, axis=-1) for shift in (1, 2, 3))
  # Not total - a: beside an entry that dwarfs the others that would be zero.
  rest = sum(others(a))
  rest = jnp.where(rest > 0, rest, 1)  # 1: the only entry that is not zero
  p = t + sum(t_j * (a / rest_j) for t_j, rest_j in zip(others(t), others(rest)))
  return chosen, groups / jnp.where(p > 0, p, 1)


def soft(groups: jax.Array, scale: jax.Array) -> Kept:
  """The soft threshold of S-STE (arXiv 2409.09099): scale sign(a) max(|a| - m, 0).

  m is the second smallest magnitude of the group, so that at most two survive and the
  map is continuous. With ties two are kept all the same, the surplus as zeros.
  """
  a = jnp.abs(groups)
  mask = largest_two(a)
  threshold = jnp.max(jnp.where(mask, -jnp.inf, a), axis=-1, keepdims=True)
  return mask, scale * jnp.sign(groups) * jnp.maximum(a - threshold, 0)


PAIRS = list(itertools.combinations(range(4), 2))
# The 90 ways to keep two in each row and each column of a 4 x 4 tile, as four pairs.
TILES = [
  rows
  for rows in itertools.product(range(len(PAIRS)), repeat=4)
  if all(sum(column in PAIRS[pair] for pair in rows) == 2 for column in range(4))
]


def _bits(rows: tuple[int, ...]) -> int:
  return sum(1 << 4 * row + column for row in range(4) for column in PAIRS[rows[row]])


def transposable_mask(y_TxF: jax.Array) -> jax.Array:
  """The mask that is 2:4 along both axes and keeps the most magnitude; T and F by fours.

  For each 4 x 4 tile the best of its 90 patterns, the first of equals. (A greedy choice
  by magnitude can end with seven entries and a hole that no free entry fits.)
  """
  T, F = y_TxF.shape
  tiles = jnp.abs(y_TxF).reshape(T // 4, 4, F // 4, 4)
  sums = [[tiles[:, r, :, i] + tiles[:, r, :, j] for i, j in PAIRS] for r in range(4)]
  best, bits = jnp.float32(-1), _bits(TILES[0])
  for rows in TILES:
    # Halves first: 36 distinct sums each, which the compiler shares between patterns.
    total = (sums[0][rows[0]] + sums[1][rows[1]]) + (sums[2][rows[2]] + sums[3][rows[3]])
    better = total > best
    best, bits = jnp.where(better, total, best), jnp.where(better, _bits(rows), bits)
  # Else XLA fuses all of the above into each of 16 entries, and compiles for minutes.
  bits = jax.lax.optimization_barrier(bits)
  # No arrays of constants: a kernel could not close over them.
  number = jax.lax.broadcasted_iota(jnp.int32, (1, 4, 1, 4), 1) * 4
  number += jax.lax.broadcasted_iota(jnp.int32, (1, 4, 1, 4), 3)
  return ((bits[:, None, :, None] >> number) & 1 != 0).reshape(T, F)


def transposable(groups: jax.Array, mask: jax.Array) -> Kept:
  """Those of the mask of the whole matrix, which a rule of groups does not see."""
  return mask, groups


# name -> (function, the keyword it needs besides the groups)
RULES: dict[str, tuple[Callable[..., Kept], str | None]] = {
  'top2': (top2, None),
  'mvue': (mvue, 'key'),
  'soft_weights': (soft, 'scale'),
  'soft_activations': (soft, 'scale'),
  'transposable': (transposable, 'mask'),
}


def apply_rule(rule: str, groups_MxGx4: jax.Array, **given: Any) -> Kept:
  """Runs a rule with the keyword that it needs; the others must be None."""
  if rule not in RULES:
    raise ValueError(f'rule={rule!r}: must be one of {", ".join(map(repr, RULES))}')
  function, needs = RULES[rule]
  for name, value in given.items():
    if (value is not None) != (name == needs):
      wanted = 'must be given' if name == needs else 'must be None'
      raise ValueError(f'{name}: {wanted} for rule={rule!r}')
  keyword = {needs: given[needs]} if needs else {}
  return function(groups_MxGx4, **keyword)
