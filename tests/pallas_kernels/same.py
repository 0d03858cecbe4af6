"""Bitwise comparison of arrays and trees of them."""

import jax
import numpy as np


def assert_same(actual, expected) -> None:
  """The same bits; NumPy's comparison takes -0 for 0."""
  for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
    assert (a.shape, a.dtype) == (b.shape, b.dtype)
    bits = f'uint{8 * a.dtype.itemsize}'
    np.testing.assert_array_equal(*(np.asarray(x).view(bits) for x in (a, b)))
