"""The language model: a LLaMA-style decoder (arXiv 2302.13971) of exchangeable parts.

  tokens -> embedding -> N x [ x + attention(norm(x));  x + feed_forward(norm(x)) ]
         -> norm -> head -> logits

Linear maps, feed-forward, attention, norm and position are kinds of systems/, sections of
the config.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from elas_jax.ops import linear as ops
from elas_jax.ops.remat import REMAT_POLICIES
from elas_jax.systems.sown import EVERY_NAME


class Block(nn.Module):
  """One layer of the decoder, in the form nn.scan wants: (carry, scanned) -> the same."""

  config: Any

  @nn.compact
  def __call__(self, x_BxLxD: jax.Array, cache: Any, angles: Any, start: Any):
    c, parts = self.config, self.config.parts
    attention = c.attention.make(parts, name='attention')
    feed_forward = c.feed_forward.make(parts, name='feed_forward')
    normed = c.norm.make(parts, name='attention_norm')(x_BxLxD)
    y_BxLxD, cache = attention(normed, angles, cache, start)
    x_BxLxD = x_BxLxD + y_BxLxD
    normed = c.norm.make(parts, name='feed_forward_norm')(x_BxLxD)
    return x_BxLxD + feed_forward(normed), cache


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
    angles = c.position.angles(positions_L, c.attention.head_size(c.parts))

    block = Block
    if c.remat != 'none':
      block = nn.remat(Block, policy=REMAT_POLICIES[c.remat], prevent_cse=False)
    layers = nn.scan(
      block,
      length=c.layers,
      variable_axes={'params': 0, 'buffers': 0, EVERY_NAME: 0},
      split_rngs={'params': True, 'noise': True},
      in_axes=(0, nn.broadcast, nn.broadcast),
      unroll=min(c.unroll, c.layers),
    )(c, name='layers')
    x_BxLxD, cache = layers(x_BxLxD, cache, angles, start)

    x_BxLxD = c.norm.make(c.parts, name='final_norm')(x_BxLxD)
    if c.tied_head:
      head_DxV = table_VxD.T
    else:
      head_DxV = self.param('head', init, (c.width, c.vocab_size), c.param_dtype)
    logits_BxLxV = ops.dense(x_BxLxD, head_DxV.astype(c.compute_dtype), jnp.float32)
    return logits_BxLxV, cache


def empty_cache(config: Any, batch: int, length: int) -> Any:
  """The mixers' states for `length` positions, stacked over the layers for `Decoder`."""
  one = config.attention.empty_state(config.parts, batch, length)
  return jax.tree.map(lambda x: jnp.broadcast_to(x, (config.layers, *x.shape)), one)
