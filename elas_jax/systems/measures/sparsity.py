"""Zeros among activations, by token (TLS) and by chunk (CLS) as BlockFFN has (2507.08771).

Of the activations y (T, F) of each layer, whatever their sign, over the valid tokens:

  zero_fraction   share of entries that are exactly zero
  nonzero_share   the others, as published for ReLU networks (Lazy Neuron, arXiv 2210.06313)
  tls             mean over tokens of the share of units that are off, that is zero
  cls             share of (chunk, unit) in which the unit is off for all tokens of a chunk
                  of n, CLS_n; not there where rows are shorter than n

The units of tls and cls are experts where a layer sows them, their routers' values after
ReLU, and single neurons elsewhere. A chunk is n consecutive tokens of one row, from its
start; what is left at the end of a row is in none, nor is a chunk with invalid tokens, and
without any chunk cls is NaN. Checked against the authors' code, which lays the valid tokens
of all rows end to end before it cuts them into chunks. Of images the tokens are patches or
positions.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from elas_jax.common.fields import at_least


@dataclasses.dataclass(frozen=True)
class Sparsity:
  chunk: int = 8  # n, consecutive tokens of a chunk

  sown: ClassVar[tuple[str, ...]] = ('activation', 'experts')
  optional: ClassVar[tuple[str, ...]] = ('experts',)
  title: ClassVar[str] = 'Sparsity of activations'
  shown: ClassVar[dict[str, str]] = {
    'zero_fraction': 'zeros {:.1%}',
    'tls': 'off by token {:.1%}',
    'cls': 'off by chunk {:.1%}',
  }

  def check(self, where: str, config: Any) -> None:
    at_least(1, where, self, 'chunk')

  def measure(self, seen: Any) -> dict[str, jax.Array]:
    off = lambda y_TxF: _mean(y_TxF == 0, seen.weights_of(len(y_TxF)) > 0)
    units = 'experts' if seen.sown['experts'] else 'activation'
    zeros_N = seen.each('activation', off)
    values = {
      'zero_fraction': zeros_N,
      'nonzero_share': 1 - zeros_N,
      'tls': seen.each(units, off),
    }
    shortest = min(x.shape[-2] for x in seen.sown[units].values()) // len(seen.weights)
    if shortest >= self.chunk:
      values['cls'] = seen.each(units, lambda y_TxE: self._off_in_chunks(seen, y_TxE))
    return values

  def _off_in_chunks(self, seen: Any, y_TxE: jax.Array) -> jax.Array:
    rows, n, (T, E) = len(seen.weights), self.chunk, y_TxE.shape
    count = T // rows // n
    off = (y_TxE == 0).reshape(rows, -1, E)[:, : count * n]
    valid = (seen.weights_of(T) > 0).reshape(rows, -1)[:, : count * n]
    off_CxE = off.reshape(rows * count, n, E).all(1)
    return _mean(off_CxE, valid.reshape(rows * count, n).all(1))


def _mean(x_CxE: jax.Array, counts_C: jax.Array) -> jax.Array:
  """Over the entries of the rows that count, NaN where none does."""
  share_C = x_CxE.mean(-1, dtype=jnp.float32)
  return jnp.where(counts_C, share_C, 0).sum() / counts_C.sum()


CASES = (Sparsity(), Sparsity(chunk=3))


def truth(kind: Sparsity, seen: Any) -> dict[str, np.ndarray]:
  zeros, chunks, rows = [], [], len(seen.weights)
  for y_TxF in seen.layers('activation'):
    valid = np.repeat(seen.weights.reshape(-1) > 0, len(y_TxF) // seen.weights.size)
    zeros.append(1 - np.count_nonzero(y_TxF[valid]) / y_TxF[valid].size)
    found = []
    for row, counts in zip(np.split(y_TxF, rows), np.split(valid, rows)):
      for start in range(0, len(row) - kind.chunk + 1, kind.chunk):
        of_chunk = slice(start, start + kind.chunk)
        if counts[of_chunk].all():
          found += [not any(neuron) for neuron in row[of_chunk].T]
    chunks.append(np.mean(found) if found else None)
  zeros = np.array(zeros)
  values = {'zero_fraction': zeros, 'nonzero_share': 1 - zeros, 'tls': zeros}
  return values | ({} if None in chunks else {'cls': np.array(chunks)})
