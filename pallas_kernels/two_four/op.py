"""The public 2:4 operations: compress, expand, matmul.

Each takes implementation=None | 'xla' | 'mosaic': None picks the best that the device
supports; a name that cannot run here raises NotImplementedError and says why.
"""

from typing import Any

import jax
import jax.numpy as jnp

from pallas_kernels.two_four.dispatch import pick
from pallas_kernels.two_four.packed import TwoFour

KERNEL_RULES = ('top2', 'transposable')


def compress(
  y: jax.Array,
  *,
  axis: int = -1,
  rule: str = 'top2',
  activation: str | None = None,
  key: jax.Array | None = None,
  scale: jax.Array | None = None,
  implementation: str | None = None,
) -> TwoFour:
  """Keeps two of every four entries along an axis, exactly two, and packs them.

  Args:
    y: a matrix, float32 or bfloat16, its length along `axis` a multiple of 4; padding to
      tiles happens inside.
    axis: the packed one, which a product will contract.
    rule: 'top2': the largest magnitudes, the lower index on ties. 'mvue': an unbiased
      random choice, which needs `key`. 'soft_weights', 'soft_activations': the soft
      threshold of S-STE times `scale`. 'transposable': 2:4 along the other axis as well.
    activation: 'relu2' applies relu(y)^2 first.

  Raises:
    ValueError: for shapes, names and arguments that do not fit.
  """
  if not -2 <= axis < 2:
    raise ValueError(f'axis={axis}: must be -2 to 1')
  _check_compress(y, axis, activation)
  lacks = '' if rule in KERNEL_RULES else f'has no kernel for rule={rule!r}'
  chosen = pick(implementation, y, lacks=lacks)
  return chosen.compress(y, axis % 2, rule, activation, key, scale)


def compress_both(
  y: jax.Array,
  *,
  rule: str = 'top2',
  activation: str | None = None,
  implementation: str | None = None,
) -> tuple[TwoFour, TwoFour]:
  """What `compress` packs along axis 1 and along axis 0, from one reading of y.

  With the rule 'transposable' both have the same entries.

  Args:
    y: as of `compress`, both its lengths multiples of 4.
    rule: 'top2' or 'transposable'.
  """
  for axis in (0, 1):
    _check_compress(y, axis, activation)
  if rule not in KERNEL_RULES:
    raise ValueError(f'rule={rule!r}: must be one of {", ".join(map(repr, KERNEL_RULES))}')
  return pick(implementation, y).compress_both(y, rule, activation)


def expand(packed: TwoFour, *, implementation: str | None = None) -> jax.Array:
  """The matrix with zeros where nothing was kept."""
  chosen = pick(implementation, packed.values, lacks='has no kernel for expand')
  return chosen.expand(packed)


def matmul(
  packed: TwoFour,
  b: jax.Array,
  *,
  transpose_b: bool = False,
  out_dtype: Any = None,
  implementation: str | None = None,
) -> jax.Array:
  """The product along the packed axis, with float32 accumulation.

  X b for an X (M, K) packed along axis 1, X^T b for an X (K, M) packed along axis 0: the
  hardware contracts the axis that is packed. b is (K, N), or (N, K) with `transpose_b`.
  Returns (M, N) in the dtype of the values unless `out_dtype` says otherwise.
  """
  _check_matrix('b', b)
  K = packed.shape[packed.axis]
  if b.shape[1 if transpose_b else 0] != K:
    raise ValueError(
      f'b of shape {b.shape} with transpose_b={transpose_b}: must have {K} entries along '
      f'the contracted axis, as the packed matrix of shape {packed.shape} does'
    )
  out_dtype = jnp.dtype(out_dtype or packed.dtype)
  return pick(implementation, packed.values, b).matmul(packed, b, transpose_b, out_dtype)


def _check_compress(y: jax.Array, axis: int, activation: str | None) -> None:
  _check_matrix('y', y)
  if y.shape[axis] % 4:
    raise ValueError(
      f'y of shape {y.shape}: its length along axis={axis} must be a multiple of 4'
    )
  if activation not in (None, 'relu2'):
    raise ValueError(f"activation={activation!r}: must be None or 'relu2'")


def _check_matrix(name: str, x: jax.Array) -> None:
  if x.ndim != 2 or x.dtype not in (jnp.float32, jnp.bfloat16):
    raise ValueError(
      f'{name} of shape {x.shape} and {x.dtype}: must be a matrix, float32 or bfloat16'
    )
