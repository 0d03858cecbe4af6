"""A linear map of one row that is mostly zero, which reads only the rows that it needs."""

import functools

import jax
import jax.numpy as jnp

from elas_jax.ops.linear import chain, dense

# Shares of the rows for which there is a program each; above the last the whole kernel is
# read, in order. Ours: benchmarks/sparse_decoding.py compares.
SHARES = (1 / 32, 1 / 16, 1 / 8, 1 / 4)


def chain_of_live(y_1xF: jax.Array, kernels: tuple[jax.Array, ...]) -> jax.Array:
  """Y = y W1 W2 ..., as ops/linear.py:chain has it, for one row y (1, F).

  Of W1 (F, O) only the rows are read whose entry of y is not zero, rounded up to one of
  SHARES of F; with more of them all of it. On a CPU, where a product with one row takes the
  time that its kernel takes to be read, that is the time of so many rows. For decoding: the
  kernel must be an array of its own, since a branch that is chosen as the program runs gets
  a copy of a slice of stacked layers. It has no gradient worth having.
  """
  first, *rest = kernels
  first = first.astype(y_1xF.dtype)
  F = first.shape[0]
  of = sizes(F)
  count = (y_1xF != 0).sum()
  branch = jnp.sum(count > jnp.array(of, jnp.int32))
  some = [functools.partial(_of_rows, size) for size in of]
  y_1xO = jax.lax.switch(branch, [*some, dense], y_1xF, first)
  return chain(y_1xO, tuple(rest))


def sizes(features: int) -> list[int]:
  """Of how many rows there is a program, beside that of all: whole eights."""
  found = {-(-int(features * share) // 8) * 8 for share in SHARES} - {0}
  return sorted(size for size in found if size < features)


def _of_rows(size: int, y_1xF: jax.Array, kernel_FxO: jax.Array) -> jax.Array:
  """The product, where at most `size` entries of y are not zero."""
  y_F = y_1xF[0]
  # Behind the last index there is F, of which the entry is taken as zero, the row as any.
  (rows_S,) = jnp.nonzero(y_F, size=size, fill_value=y_F.size)
  live_S = jnp.take(y_F, rows_S, mode='fill', fill_value=0)
  kernel_SxO = jnp.take(kernel_FxO, rows_S, axis=0, mode='clip')
  return dense(live_S[None], kernel_SxO)
