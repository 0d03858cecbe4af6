"""The tiles that the kernels take unless tuned, at the published sizes."""

import pytest

from pallas_kernels.roofline import SIZES
from pallas_kernels.two_four import mosaic
from pallas_kernels.two_four.cases import whole

T, MULTIPROCESSORS = 16384, 132


@pytest.mark.parametrize('size', SIZES)
def test_a_weight_gradient_has_work_for_nearly_all_multiprocessors(size):
  _, F, R = SIZES[size]
  config = mosaic.weight_gradient_config(T, whole(F), R)
  tiles = whole(F) // 128 * (R // config.tile_n) * config.splits
  rounds = -(-tiles // MULTIPROCESSORS)
  assert tiles >= 0.85 * rounds * MULTIPROCESSORS
  steps = -(-(T // 64) // config.splits)
  assert (config.splits - 1) * steps < T // 64, 'a part without tokens'


@pytest.mark.parametrize('size', SIZES)
def test_weights_are_resident_where_they_fit(size):
  _, F, R = SIZES[size]
  config = mosaic.dense_config(whole(F), R)
  assert config.resident == (R <= 512)
  # Weights, a warpgroup's ring, and packed tiles: 128 columns are 64 values and 2 words.
  chunk = min(R, config.chunk)
  ring, packed = config.stages * 64 * chunk * 2, 64 * (128 + 16)
  bytes_ = R * 128 * 2 + config.warpgroups * (ring + config.buffers * packed)
  assert not config.resident or bytes_ <= 227 * 1024


@pytest.mark.parametrize(('M', 'cluster'), [(T, 2), (128, 1), (200, 2), (300, 1)])
def test_two_ctas_share_b_where_rows_make_pairs_of_tiles(M, cluster):
  assert mosaic.matmul_config(M, 256).cluster == cluster
