"""The product of a row that is mostly zero: equal to the whole, whatever is zero."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elas_jax.ops.live_rows import SHARES, chain_of_live

F, R, D = 64, 8, 16
random = np.random.default_rng(0)
KERNELS = {
  'dense': (random.normal(size=(F, D)),),
  'low_rank': (random.normal(size=(F, R)), random.normal(size=(R, D))),
}
product = jax.jit(chain_of_live)


@pytest.mark.parametrize('kernels', KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize('live', range(F + 1))
def test_it_is_the_product_however_many_are_not_zero(kernels, live):
  """Of float64: with no entry, at and beside every size of a program, and with all."""
  own = np.random.default_rng(live)  # the same in whatever order tests run
  y_F = np.zeros(F)
  y_F[own.permutation(F)[:live]] = own.normal(size=live)
  narrow = [jnp.asarray(x, jnp.float32) for x in kernels]
  found = product(jnp.asarray(y_F[None], jnp.float32), tuple(narrow))
  expected = np.linalg.multi_dot([y_F, *kernels])
  np.testing.assert_allclose(found[0], expected, atol=1e-5 * max(1, np.abs(expected).max()))


def test_rows_of_zeros_are_not_read():
  """What stands in them does not matter, while a program for fewer rows is taken."""
  (kernel,) = KERNELS['dense']
  y_F, bad = np.zeros(F), kernel.copy()
  live = [3, 40, 63]
  y_F[live] = 1, -2, 3
  bad[[f for f in range(F) if f not in live]] = np.nan
  size = -(-int(F * SHARES[0]) // 8) * 8
  assert len(live) < size
  # The rows behind the last live one are any, times zero: a number, but not NaN's.
  bad[F - 1] = kernel[F - 1]
  found = product(jnp.asarray(y_F[None], jnp.float32), (jnp.asarray(bad, jnp.float32),))
  np.testing.assert_allclose(found[0], y_F[live] @ kernel[live], atol=2e-5)


def test_not_a_number_comes_through():
  y_F = np.zeros((1, F), np.float32)
  y_F[0, 5] = np.nan
  (kernel,) = KERNELS['dense']
  assert np.isnan(product(jnp.asarray(y_F), (jnp.asarray(kernel, jnp.float32),))).all()
