"""What feed-forwards share: the last of their maps."""

import jax

from elas_jax.ops.live_rows import chain_of_live
from elas_jax.systems import kinds
from elas_jax.systems.kinds import Parts


def last_map(parts: Parts, y_BxLxF: jax.Array) -> jax.Array:
  """down(y), (B, L, D), in the module that calls it.

  With parts.skip_zeros and one token, by the rows of `down` whose entry of y is not zero:
  where the linear map is a plain product without a bias, of which nothing else is read.
  """
  down = parts.linear.make(parts.width, parts, name='down')
  F = y_BxLxF.shape[-1]
  plain = kinds.kernels(parts.linear) and not parts.use_bias
  if not (parts.skip_zeros and plain and y_BxLxF.size == F):
    return down(y_BxLxF)
  y_1xD = chain_of_live(y_BxLxF.reshape(1, F), down.kernels(F))
  return y_1xD.reshape(*y_BxLxF.shape[:-1], -1)
