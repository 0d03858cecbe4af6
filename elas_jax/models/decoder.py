"""The language model: a LLaMA-style decoder (arXiv 2302.13971) of exchangeable parts.

  tokens -> embedding -> N x [ x + attention(norm(x));  x + feed_forward(norm(x)) ]
         -> norm -> head -> logits

The linear maps, the feed-forward and the attention are named in the config; see the
dicts LINEARS, FEED_FORWARDS and ATTENTIONS in layers/.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from elas_jax.config.config import ModelConfig
from elas_jax.layers.attention import ATTENTIONS
from elas_jax.layers.feed_forward import FEED_FORWARDS
from elas_jax.layers.norm import RMSNorm
from elas_jax.layers.two_four import ACTIVATIONS
from elas_jax.ops import linear as ops
from elas_jax.ops.attention import rotary_angles

# What the backward pass keeps of a block: None, everything; else what the policy saves.
REMAT_POLICIES = {
  'none': None,
  'full': jax.checkpoint_policies.nothing_saveable,
  'dots': jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
  # The R-wide results between the factors: CoLA-M (arXiv 2502.10940).
  'bottleneck': jax.checkpoint_policies.save_only_these_names('bottleneck'),
}


class Block(nn.Module):
  """One layer of the decoder, in the form nn.scan wants: (carry, scanned) -> the same."""

  config: ModelConfig

  @nn.compact
  def __call__(self, x_BxLxD: jax.Array, cache: Any, angles_LxK2: jax.Array, start: Any):
    c = self.config
    attention = ATTENTIONS[c.attention](c, name='attention')
    feed_forward = FEED_FORWARDS[c.feed_forward](c, name='feed_forward')
    normed = RMSNorm(c, name='attention_norm')(x_BxLxD)
    y_BxLxD, cache = attention(normed, angles_LxK2, cache, start)
    x_BxLxD = x_BxLxD + y_BxLxD
    normed = RMSNorm(c, name='feed_forward_norm')(x_BxLxD)
    return x_BxLxD + feed_forward(normed), cache


class Decoder(nn.Module):
  """Next-token logits. Parameters of the N layers are stacked on a leading axis."""

  config: ModelConfig

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
    positions = start + jnp.arange(tokens_BxL.shape[1])
    angles_LxK2 = rotary_angles(positions, c.head_size, c.rope_base)

    block = Block
    if c.remat != 'none':
      block = nn.remat(Block, policy=REMAT_POLICIES[c.remat], prevent_cse=False)
    layers = nn.scan(
      block,
      length=c.layers,
      variable_axes={'params': 0, 'buffers': 0, ACTIVATIONS: 0},
      split_rngs={'params': True, 'two_four': True},
      in_axes=(0, nn.broadcast, nn.broadcast),
      unroll=min(c.unroll, c.layers),
    )(c, name='layers')
    x_BxLxD, cache = layers(x_BxLxD, cache, angles_LxK2, start)

    x_BxLxD = RMSNorm(c, name='final_norm')(x_BxLxD)
    if c.tied_head:
      head_DxV = table_VxD.T
    else:
      head_DxV = self.param('head', init, (c.width, c.vocab_size), c.param_dtype)
    logits_BxLxV = ops.dense(x_BxLxD, head_DxV.astype(c.compute_dtype), jnp.float32)
    return logits_BxLxV, cache


def empty_cache(config: ModelConfig, batch: int, length: int) -> Any:
  """A cache for `length` positions, stacked over the layers as `Decoder` takes it."""
  one = ATTENTIONS[config.attention].empty_cache(config, batch, length)
  return jax.tree.map(lambda x: jnp.broadcast_to(x, (config.layers, *x.shape)), one)
