"""The clocks of a step against arithmetic by hand."""

import pytest

from pallas_kernels.machine import clocks, copied, gains


def test_a_sparse_step_of_128_x_256():
  step = clocks(128, 256, sparse=True)
  # Two warpgroups of four instructions: 64 256 32 multiplications at 4096 a clock.
  assert step.math == 8 * 128
  # 64 x 16 kept values are 2 KB; 32 x 256 of B are 16 KB: 18 KB at 128 B a clock.
  assert step.reads == 8 * 18 * 1024 / 128 == 8 * 144
  # 16 KB kept, 2 KB of metadata, 64 KB of B.
  assert copied(128, 256, sparse=True) == (16 + 2 + 64) * 1024
  assert step.writes == 656
  assert step.arrival == 1312
  assert step.resident == step.beside == 1152
  assert step.shared == 1152 + 656
  assert step.fed == 1312


def test_a_dense_step_of_128_x_256():
  step = clocks(128, 256, sparse=False)
  assert step.math == 16 * 128
  # 2 KB of A, 8 KB of B: 80 clocks. 32 KB and 64 KB written.
  assert (step.reads, step.writes) == (16 * 80, 768)
  # The port is just full, and the products wait for nothing.
  assert step.shared == step.fed == step.beside == step.resident == 2048


@pytest.mark.parametrize(
  ('tile', 'shared', 'fed', 'beside'),
  [
    ((128, 256), 2048 / 1808, 2048 / 1312, 2048 / 1152),  # 1.13, 1.56, 1.78
    # 16 instructions of 10 KB; 32 + 4 + 32 KB.
    ((256, 128), 2048 / (1280 + 544), 2048 / 1280, 2048 / 1280),
    # 12 instructions of 18 KB; 24 + 3 + 64 KB.
    ((192, 256), 3072 / (1728 + 728), 3072 / 1728, 3072 / 1728),
  ],
)
def test_bounds_of_the_gain(tile, shared, fed, beside):
  assert gains(*tile) == pytest.approx((shared, fed, beside))
