"""The language model: a LLaMA-style decoder (arXiv 2302.13971) of exchangeable parts.

  tokens -> embedding -> N layers (systems/layers.py) -> norm -> head -> logits

Linear maps, feed-forward, attention, norm and position are kinds of systems/, sections of
the config.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from elas_jax.ops import linear as ops


class Decoder(nn.Module):
  """Next-token logits. Parameters of the N layers are stacked on a leading axis."""

  config: Any  # ModelConfig

  @nn.compact
  def __call__(
    self, tokens_BxL: jax.Array, cache: Any = None, start: Any = 0
  ) -> tuple[jax.Array, Any]:
    """Returns (logits (B, L, V) in float32, cache).

    With a cache (`empty_cache`), the tokens stand at positions start, start + 1, ...,
    attend to what the cache holds before them, and the returned cache holds them too.
    """
    c = self.config
    init = nn.initializers.normal(c.init_std)
    table_VxD = self.param('embedding', init, (c.vocab_size, c.width), c.param_dtype)
    x_BxLxD = table_VxD[tokens_BxL].astype(c.compute_dtype)
    positions_L = start + jnp.arange(tokens_BxL.shape[1])
    x_BxLxD = c.position.make(c.parts, name='position')(x_BxLxD, positions_L)

    layers = c.stack.make(train=False, name='layers')
    x_BxLxD, cache = layers(x_BxLxD, cache, c.stack.angles(positions_L), start)

    x_BxLxD = c.norm.make(c.parts, name='final_norm')(x_BxLxD)
    if c.tied_head:
      head_DxV = table_VxD.T
    else:
      head_DxV = self.param('head', init, (c.width, c.vocab_size), c.param_dtype)
    logits_BxLxV = ops.dense(x_BxLxD, head_DxV.astype(c.compute_dtype), jnp.float32)
    return logits_BxLxV, cache


def empty_cache(config: Any, batch: int, length: int) -> Any:
  """The mixers' states for `length` positions, stacked over the layers for `Decoder`."""
  return config.stack.empty_state(batch, length)
