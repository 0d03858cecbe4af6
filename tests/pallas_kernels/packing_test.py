"""The thread-by-thread algorithms of the kernels, run on a simulated warpgroup.

What they write must be, bit by bit, what reference.py packs.
"""

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from pallas_kernels.two_four import TwoFour, compress, expand
from pallas_kernels.two_four.mosaic_gpu import packing
from tests.pallas_kernels.simulated import (
  POISON,
  Shared,
  Simulated,
  fragments_of,
  swizzled,
  unswizzled,
)

BF16 = ml_dtypes.bfloat16


def matrix(kind: str, width: int) -> np.ndarray:
  random = np.random.default_rng(0)
  if kind == 'ties':
    x = random.integers(0, 3, (64, width))
  elif kind == 'zeros':
    x = random.random((64, width)) * (random.random((64, width)) < 0.2)
  elif kind == 'signed':
    x = random.standard_normal((64, width)) * random.integers(0, 2, (64, width))
  elif kind == 'not_finite':
    x = random.choice([np.nan, np.inf, -np.inf, 0, -0.0, 1], (64, width))
  elif kind == 'signed_ties':
    x = random.integers(-1, 2, (64, width))
  else:
    x = np.square(random.standard_normal((64, width)))
  return x.astype(BF16)


@pytest.mark.parametrize('width', [128, 256])
@pytest.mark.parametrize('activation', [None, 'relu2'])
@pytest.mark.parametrize(
  'kind', ['positive', 'ties', 'zeros', 'signed', 'signed_ties', 'not_finite']
)
def test_prune_equals_the_reference(kind, activation, width):
  x = matrix(kind, width)
  values, metadata = Shared.of_bytes(64 * width), Shared.of_bytes(width // 128 * 1024)
  packing.prune(Simulated(), fragments_of(x), values, metadata, activation)
  check(x, activation, values, metadata)


def check(x: np.ndarray, activation, values: Shared, metadata: Shared) -> None:
  """That it is what the reference packs, bit by bit, and all of it."""
  packed = compress(jnp.asarray(x), activation=activation)
  assert not (metadata.words == POISON).any()
  np.testing.assert_array_equal(
    unswizzled(values, 64, x.shape[1] // 2).view(np.uint16),
    np.asarray(packed.values).view(np.uint16),
  )
  np.testing.assert_array_equal(
    metadata.words.reshape(-1, 1, 256), np.asarray(packed.metadata)
  )


def test_parts_of_a_wider_matrix_have_its_rows():
  """As up_compress and gated_backward take 128 of their 256 columns at a time."""
  x, d = matrix('zeros', 256), matrix('signed', 256)
  z = compress(jnp.asarray(x))
  packed, metadata = Shared.of_bytes(64 * 256), Shared.of_bytes(2 * 1024)
  gated = swizzled(np.asarray(z.values))
  for part in (0, 1):
    columns = slice(part * 128, (part + 1) * 128)
    words, slopes = (fragments_of(np.ascontiguousarray(m[:, columns])) for m in (x, d))
    here = lambda shared, part=part: Shared(shared.words[part * packing.TILE // 4 :])
    there = Shared(metadata.words[part * 256 : (part + 1) * 256])
    packing.prune(Simulated(), words, here(packed), there, None, width=128)
    packing.gate(Simulated(), slopes, here(gated), there, 128)
  check(x, None, packed, metadata)
  np.testing.assert_array_equal(unswizzled(gated, 64, 128), slope_at_kept(z, d))


@pytest.mark.parametrize('width', [128, 256])
def test_gate_takes_the_slope_at_the_kept_entries(width):
  z = compress(jnp.asarray(matrix('zeros', width)))
  d = matrix('signed', width)
  values = swizzled(np.asarray(z.values))
  metadata = Shared(np.asarray(z.metadata).reshape(-1))
  packing.gate(Simulated(), fragments_of(d), values, metadata)
  np.testing.assert_array_equal(unswizzled(values, 64, width // 2), slope_at_kept(z, d))


def slope_at_kept(z: TwoFour, d: np.ndarray) -> np.ndarray:
  dense = np.asarray(expand(z)).astype(np.float32)
  slope = (2 * np.sqrt(dense) * d.astype(np.float32)).astype(BF16)
  kept = np.asarray(expand(TwoFour(jnp.ones_like(z.values), z.metadata, 1, z.shape)))
  return slope[kept != 0].reshape(64, d.shape[1] // 2)


@pytest.mark.parametrize('warpgroup', [0, 1])
@pytest.mark.parametrize('kind', ['signed', 'ties', 'zeros'])
def test_spread_is_the_inverse(kind, warpgroup):
  x = compress(jnp.asarray(matrix(kind, 128)))
  dense = Shared.of_bytes(64 * 64 * 2)
  metadata = Shared(np.asarray(x.metadata).reshape(-1))
  machine = Simulated(warpgroup)
  packing.spread(machine, swizzled(np.asarray(x.values)), metadata, dense)
  expected = np.asarray(expand(x))[:, 64 * warpgroup : 64 * (warpgroup + 1)]
  np.testing.assert_array_equal(unswizzled(dense, 64, 64), expected)
