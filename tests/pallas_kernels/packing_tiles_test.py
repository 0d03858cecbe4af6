"""Packing straight from a tile in shared memory, run on a simulated warpgroup.

What it writes must be, bit by bit, what the reference packs.
"""

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from pallas_kernels.two_four.mosaic_gpu import packing_tiles
from tests.conftest import thinned
from tests.pallas_kernels.packed_reference import packed_reference
from tests.pallas_kernels.simulated import POISON, Shared, Simulated, swizzled, unswizzled

BF16 = ml_dtypes.bfloat16


def tile(kind: str) -> np.ndarray:
  random = np.random.default_rng(0)
  shape = 128, 128
  if kind == 'ties':
    x = random.integers(-2, 3, shape)
  elif kind == 'zeros':
    x = random.standard_normal(shape) * (random.random(shape) < 0.2)
  elif kind == 'scales':  # sums round, and those that do not tie may tie then
    x = random.integers(-3, 4, shape) * 2.0 ** random.integers(-15, 15, shape)
  else:
    x = random.standard_normal(shape)
  return x.astype(BF16)


def pack(x: np.ndarray, axes: list[int], rule: str, activation: str | None) -> dict:
  """By axis the packed tile, (values, metadata), from its two halves."""
  values, words = {0: [], 1: []}, {0: [Shared.of_bytes(2048)], 1: []}
  for half in (0, 1):
    values[1].append(Shared.of_bytes(64 * 64 * 2))
    values[0].append(Shared.of_bytes(32 * 128 * 2))
    words[1].append(Shared.of_bytes(1024))
    outputs = [(values[axis][-1], words[axis][-1]) for axis in (1, 0)]
    outputs = [pair if axis in axes else None for axis, pair in zip((1, 0), outputs)]
    rows = swizzled(x[64 * half : 64 * half + 64])
    packing_tiles.pack_tile(Simulated(), rows, half, *outputs, rule, activation)
  shape = {0: (32, 128), 1: (64, 64)}
  return {
    axis: (
      np.concatenate([unswizzled(half, *shape[axis]) for half in values[axis]]),
      np.concatenate([part.words for part in words[axis]]).reshape(1, 2, 256),
    )
    for axis in axes
  }


@pytest.mark.parametrize('activation', [None, 'relu2'])
@pytest.mark.parametrize('rule', ['top2', 'transposable'])
@pytest.mark.parametrize(
  'kind', thinned(['random', 'ties', 'zeros', 'scales'], 'ties', 'scales')
)
def test_both_packings_equal_the_reference(kind, rule, activation):
  x = tile(kind)
  packed = pack(x, [0, 1], rule, activation)
  for axis, (values, metadata) in packed.items():
    expected = packed_reference(jnp.asarray(x), axis, rule, activation)
    assert not (metadata == POISON).any()
    np.testing.assert_array_equal(values.view(np.uint16), expected[0].view(np.uint16))
    np.testing.assert_array_equal(metadata, expected[1])


@pytest.mark.parametrize('rule', ['top2', 'transposable'])
@pytest.mark.parametrize('axis', [0, 1])
def test_one_packing_is_as_with_both(axis, rule):
  x = tile('zeros')
  alone, both = (pack(x, axes, rule, None)[axis] for axes in ([axis], [0, 1]))
  np.testing.assert_array_equal(alone[0].view(np.uint16), both[0].view(np.uint16))
  np.testing.assert_array_equal(alone[1], both[1])


class Banked(Simulated):
  """Every access to values takes its lanes to all 32 banks of 4 bytes alike."""

  def load2(self, ref, byte):
    self.check(byte, 8)
    return super().load2(ref, byte)

  def store2(self, words, ref, byte):
    self.check(byte, 8)
    for number, word in enumerate(words):
      Simulated.store(self, word, ref, byte + 4 * number)

  def store(self, x, ref, byte):
    if len(ref.words) > 512:  # not metadata
      self.check(byte, 4)
    super().store(x, ref, byte)

  def check(self, byte, width):
    lanes = 128 // width  # that one access of 128 bytes serves
    for places in (byte // width).reshape(-1, lanes):
      assert len(set(places % lanes)) == lanes, 'a bank conflict'


def test_values_move_without_bank_conflicts():
  outputs = [(Shared.of_bytes(8192), Shared.of_bytes(size)) for size in (1024, 2048)]
  rows = swizzled(tile('random')[:64])
  packing_tiles.pack_tile(Banked(), rows, 0, *outputs, 'top2', None)
