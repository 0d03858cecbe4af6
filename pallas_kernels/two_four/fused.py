"""The 2:4 operations of a squared-ReLU feed-forward, which keep what is F wide packed.

  z = prune(relu(s U)^2),  t = z V,   with s (T, R), U (R, F), V (F, N)

Each takes implementation=None | 'xla' | 'mosaic', as in op.py.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from pallas_kernels.two_four import reference
from pallas_kernels.two_four.dispatch import padded, pick
from pallas_kernels.two_four.op import compress, compress_both, matmul
from pallas_kernels.two_four.packed import TwoFour

BACKWARDS = ('exact', 'transposable')


def up_compress(
  x: jax.Array,
  w: jax.Array,
  *,
  transpose_w: bool = False,
  implementation: str | None = None,
) -> TwoFour:
  """prune(relu(x w)^2) by top2, packed along F; the kernel writes nothing F wide and dense.

  x is (T, K), w (K, F), or (F, K) with `transpose_w`; F a multiple of 4.
  """
  _check_product('x', x, 'w', w, transpose_w)
  if w.shape[0 if transpose_w else 1] % 4:
    raise ValueError(f'w of shape {w.shape}: its F must be a multiple of 4')
  return pick(implementation, x, w).up_compress(x, w, transpose_w)


def gated_backward(
  g: jax.Array,
  w: jax.Array,
  z: TwoFour,
  *,
  transpose_w: bool = True,
  implementation: str | None = None,
) -> TwoFour:
  """The gradient of h from that of z V, V = w^T: 2 sqrt(z) (g w) at the kept entries.

  It is 0 elsewhere, and comes packed as z is.

  g is (T, N), w (F, N), or (N, F) without `transpose_w`; z (T, F) packed along F.
  """
  _check_product('g', g, 'w', w, transpose_w)
  expected = (g.shape[0], w.shape[0 if transpose_w else 1])
  if z.axis != 1 or z.shape != expected:
    raise ValueError(
      f'z of shape {z.shape}, axis={z.axis}: must be {expected}, packed along axis 1'
    )
  return pick(implementation, g, w, z.values).gated_backward(g, w, z, transpose_w)


def weight_gradient(
  z: TwoFour,
  g: jax.Array,
  *,
  out_dtype: Any = jnp.float32,
  implementation: str | None = None,
) -> jax.Array:
  """z^T g, (F, N), for z (T, F) packed along F and g (T, N): over tokens, so dense.

  The kernel reads z packed and unpacks it no further out than shared memory.
  """
  if z.axis != 1 or g.ndim != 2 or g.shape[0] != z.shape[0]:
    raise ValueError(
      f'z of shape {z.shape}, axis={z.axis}, and g of shape {g.shape}: must be (T, F), '
      'packed along axis 1, and (T, N)'
    )
  return pick(implementation, z.values, g).weight_gradient(z, g, jnp.dtype(out_dtype))


def feed_forward(
  s: jax.Array,
  up: jax.Array,
  down: jax.Array,
  backward: str = 'exact',
  implementation: str | None = None,
) -> jax.Array:
  """The product prune(relu(s up)^2) down, (T, R) -> (T, N).

  Saved for the backward pass: s, the weights and the packed z, 9/16 of one F-wide bf16
  tensor. Without a gradient z is not written at all, on 'mosaic' and for R, N <= 256.

  Args:
    s: (T, R).
    up: (R, F), F a multiple of 4.
    down: (F, N).
    backward: 'exact': the gradient of just that. 'transposable': that of z pruned further,
      to 2:4 along tokens as well, so that the gradients of the weights, which contract
      tokens, are sparse products too. (z and dh are unpacked in memory for that.)
  """
  _check_product('s', s, 'up', up, False)
  if down.ndim != 2 or down.shape[0] != up.shape[1] or up.shape[1] % 4:
    raise ValueError(
      f'up of shape {up.shape} and down of shape {down.shape}: must be (R, F) and (F, N), '
      'F a multiple of 4'
    )
  if backward not in BACKWARDS:
    raise ValueError(f'backward={backward!r}: must be one of {", ".join(BACKWARDS)}')
  # Features of zeros, here once and in the weights alone: else every kernel would copy
  # what is F wide to pad it, and again to cut it.
  features = pick(implementation, s, up, down).FEATURES
  up, down = padded(up, (1, features)), padded(down, (features, 1))
  return _feed_forward(s, up, down, backward, implementation)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _feed_forward(s, up, down, backward, implementation):
  return pick(implementation, s, up, down).feed_forward(s, up, down, False)


def _forward(s, up, down, backward, implementation):
  out, z = pick(implementation, s, up, down).feed_forward(s, up, down, True)
  return out, (s, up, down, z)


def _backward(backward, implementation, saved, g):
  s, up, down, z = saved
  which = {'implementation': implementation}
  if backward == 'exact':
    dh = gated_backward(g, down, z, **which)
    d_up = weight_gradient(dh, s, out_dtype=up.dtype, **which).T
    d_down = weight_gradient(z, g, out_dtype=down.dtype, **which)
  else:
    tokens, fours = s.shape[0], lambda x: padded(x, (4, 1))
    s, g = fours(s), fours(g)
    z = fours(reference.expand(z))
    z, z_tokens = compress_both(z, rule='transposable', **which)
    dh = gated_backward(g, down, z, **which)
    # Of four tokens at most two are not zero: this keeps all there is.
    dh_tokens = compress(reference.expand(dh), axis=0, **which)
    d_up = matmul(dh_tokens, s, out_dtype=up.dtype, **which).T
    d_down = matmul(z_tokens, g, out_dtype=down.dtype, **which)
    ds = matmul(dh, up, transpose_b=True, out_dtype=s.dtype, **which)
    return ds[:tokens], d_up, d_down
  ds = matmul(dh, up, transpose_b=True, out_dtype=s.dtype, **which)
  return ds, d_up, d_down


_feed_forward.defvjp(_forward, _backward)


def sharded_feed_forward(
  s: jax.Array,
  up: jax.Array,
  down: jax.Array,
  *,
  rows: tuple[str, ...],
  features: str,
  backward: str = 'exact',
  implementation: str | None = None,
) -> jax.Array:
  """`feed_forward` on the mesh in scope: the compiler cannot split a kernel by itself.

  Every device takes its tokens and its features; weights are whole along `rows`, and the
  parts of the features are added up, in the dtype of s, as the parts of a sharded dense
  product are.

  Args:
    rows: axes of the mesh that split T.
    features: the axis that splits F, if each part is a multiple of 4; else F stays whole.
  """
  mesh = jax.sharding.get_abstract_mesh()
  parts = math.prod(mesh.shape[axis] for axis in rows)
  if s.shape[0] % parts:
    raise ValueError(f's of shape {s.shape}: T must divide by the {parts} parts of {rows}')
  axis = features if up.shape[1] % (4 * mesh.shape[features]) == 0 else None

  def local(s, up, down):
    out = feed_forward(s, up, down, backward, implementation)
    return jax.lax.psum(out, axis) if axis else out

  P = jax.sharding.PartitionSpec
  specs = P(rows, None), P(None, axis), P(axis, None)
  return jax.shard_map(local, in_specs=specs, out_specs=P(rows, None), check_vma=False)(
    s, up, down
  )


def _check_product(x_name: str, x, w_name: str, w, transpose_w: bool) -> None:
  if x.ndim != 2 or w.ndim != 2 or x.shape[1] != w.shape[1 if transpose_w else 0]:
    wanted = '(T, K) and (F, K)' if transpose_w else '(T, K) and (K, F)'
    raise ValueError(
      f'{x_name} of shape {x.shape} and {w_name} of shape {w.shape}: must be {wanted}'
    )
