"""Products with a single one in each row of A: their failures name what is permuted."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pallas_kernels.bench.programs import compiled, run_poisoned
from pallas_kernels.two_four import TwoFour, compress, matmul
from pallas_kernels.two_four.dispatch import configured

SHAPE = (256, 512, 256)  # M, K, N
SHOWN = 24


def halves_swapped(words: jax.Array) -> jax.Array:
  """Each entry's metadata where that of the entry 16 further on (or back) belongs."""
  return words.reshape(*words.shape[:2], 4, 2, 8, 4)[:, :, :, ::-1].reshape(words.shape)


def rows_swapped(words: jax.Array) -> jax.Array:
  """The metadata of row r where that of row r + 8 belongs, and the other way round."""
  return words >> 16 | words << 16


CHANGES: dict[str, Callable[[jax.Array], jax.Array]] = {
  '': lambda words: words,
  'halves': halves_swapped,
  'rows': rows_swapped,
}


def check_one_hot(
  axis: int,
  transpose_b: bool,
  fields: dict[str, Any],
  change: str = '',
  shape: tuple[int, int, int] = SHAPE,
) -> dict[str, Any]:
  """Products that name the row of B and the column that each output entry came from.

  Row i of A has a single one, in column p(i). The columns of B first hold their row's
  number, in two digits, then all rows hold their column's.

  Args:
    fields: of the kernel's config.
    change: what is done to the metadata, of CHANGES.
    shape: M, K, N.
  """
  M, K, N = shape
  p = (np.arange(M) * 37 + 5) % K
  a = np.zeros((M, K), np.float32)
  a[np.arange(M), p] = 1
  rows = np.zeros((K, N), np.float32)
  rows[:, 0], rows[:, 1] = np.arange(K) % 256, np.arange(K) // 256
  columns = np.broadcast_to(np.arange(N) % 256, (K, N))
  place = lambda x, turned: jnp.asarray(x.T if turned else x, jnp.bfloat16)
  packed = compress(place(a, axis == 0), axis=axis, implementation='xla')
  metadata = CHANGES[change](packed.metadata)
  packed = TwoFour(packed.values, metadata, packed.axis, packed.shape)

  with configured(fields):
    program = compiled(
      lambda x, b: matmul(x, b, transpose_b=transpose_b, implementation='mosaic'),
      (packed, place(rows, transpose_b)),
    )
  product = lambda b: np.asarray(
    run_poisoned(program, (packed, place(b, transpose_b))), np.float32
  )
  return _verdict(p, product(rows), product(columns), columns)


def _verdict(
  p: np.ndarray, of_rows: np.ndarray, of_columns: np.ndarray, columns: np.ndarray
) -> dict[str, Any]:
  # A NaN is no number of a row.
  found = of_rows[:, 0] + 256 * of_rows[:, 1]
  found = np.where(np.isfinite(found), found, -1).astype(int)
  bad = np.nonzero(found != p)[0]
  moved = np.argwhere(of_columns != columns[:1])
  return {
    'passed': not len(bad) and not len(moved),
    'wrong_rows': len(bad),
    'first_rows': [[int(i), int(p[i]), int(found[i])] for i in bad[:SHOWN]],
    'wrong_rows_mod_64': np.unique(bad % 64).tolist(),
    'wrong_entries_by_column': len(moved),
    'first_entries': moved[:SHOWN].tolist(),
  }
