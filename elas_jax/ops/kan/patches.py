"""Image patches as rows, for layers that see one patch at a time."""

import jax


def patches(x_BxHxWxC: jax.Array, kernel: int, stride: int) -> jax.Array:
  """Square patches of side `kernel`, flattened: (B, H / stride, W / stride, C kernel^2).

  Each is centred on its pixel, as in convolutions padded by kernel // 2 zeros; H and W are
  divided upwards. The last axis is in the order (C, row, column).
  """
  return jax.lax.conv_general_dilated_patches(
    x_BxHxWxC,
    (kernel, kernel),
    (stride, stride),
    ((kernel // 2, kernel // 2),) * 2,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    # It is computed as a product with ones and zeros, which must not round its input.
    precision=jax.lax.Precision.HIGHEST,
  )
