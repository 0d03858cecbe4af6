"""Image patches as rows, for layers that see one patch at a time."""

import jax


def patches(x_BxHxWxC: jax.Array, kernel: tuple[int, int], stride: int) -> jax.Array:
  """Patches of h x w pixels, `kernel`, flattened: (B, H / stride, W / stride, C h w).

  Each is centred on its pixel, as in convolutions padded by h // 2 and w // 2 zeros; H and
  W are divided upwards. The last axis is in the order (C, row, column).
  """
  return jax.lax.conv_general_dilated_patches(
    x_BxHxWxC,
    kernel,
    (stride, stride),
    [(side // 2, side // 2) for side in kernel],
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    # It is computed as a product with ones and zeros, which must not round its input.
    precision=jax.lax.Precision.HIGHEST,
  )
