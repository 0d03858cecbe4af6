"""2:4-sparse operands: of every four consecutive entries along an axis, two are kept."""

from pallas_kernels.two_four.op import compress, expand, matmul
from pallas_kernels.two_four.packed import TwoFour
from pallas_kernels.two_four.rules import RULES, largest_two, transposable_mask

__all__ = [
  'RULES',
  'TwoFour',
  'compress',
  'expand',
  'largest_two',
  'matmul',
  'transposable_mask',
]
