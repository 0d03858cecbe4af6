"""What feed-forwards share: the last of their maps."""

import flax.linen as nn
import jax

from elas_jax.ops.live_rows import chain_of_live
from elas_jax.systems import kinds
from elas_jax.systems.kinds import Parts
from elas_jax.systems.sown import cut, sow


def last_map(module: nn.Module, parts: Parts, y_BxLxF: jax.Array) -> jax.Array:
  """down(y), (B, L, D), for `module`, which gives y away and calls this while it runs.

  With parts.skip_zeros and one token, by the rows of `down` whose entry of y is not zero:
  where the linear map is a plain product without a bias, of which nothing else is read.
  """
  F = y_BxLxF.shape[-1]
  sow(module, 'activation', lambda: y_BxLxF.reshape(-1, F))
  y_BxLxF = cut(module, y_BxLxF)
  down = parts.linear.make(parts.width, parts, name='down')
  plain = kinds.kernels(parts.linear) and not parts.use_bias
  if not (parts.skip_zeros and plain and y_BxLxF.size == F):
    return down(y_BxLxF)
  y_1xD = chain_of_live(y_BxLxF.reshape(1, F), down.kernels(F))
  return y_1xD.reshape(*y_BxLxF.shape[:-1], -1)
