"""2:4-sparse operands: of every four consecutive entries along an axis, two are kept."""

from pallas_kernels.two_four.dispatch import takes_kernels
from pallas_kernels.two_four.fused import (
  feed_forward,
  gated_backward,
  sharded_feed_forward,
  up_compress,
  weight_gradient,
)
from pallas_kernels.two_four.op import compress, compress_both, expand, matmul
from pallas_kernels.two_four.packed import TwoFour
from pallas_kernels.two_four.rules import RULES, largest_two, transposable_mask

__all__ = [
  'RULES',
  'TwoFour',
  'compress',
  'compress_both',
  'expand',
  'feed_forward',
  'gated_backward',
  'largest_two',
  'matmul',
  'sharded_feed_forward',
  'takes_kernels',
  'transposable_mask',
  'up_compress',
  'weight_gradient',
]
