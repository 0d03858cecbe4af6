"""The language model: a LLaMA-style decoder (arXiv 2302.13971) of exchangeable parts.

  tokens -> embedding -> N layers (systems/layers.py) -> norm -> head -> logits

Linear maps, feed-forward, attention, norm and position are kinds of systems/, sections of
the config.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from elas_jax.ops import linear as ops
from elas_jax.systems.layers import layers_apart

EMBEDDINGS = ('embedding', 'head')  # the parameters of optimizer.embedding_rate


class Decoder(nn.Module):
  """Next-token logits. Parameters of the N layers are stacked on a leading axis."""

  config: Any  # ModelConfig
  by_layer: bool = False  # its variables and cache are those that `apart` makes
  skip_zeros: bool = False  # with that, of one token: see Parts

  @nn.compact
  def __call__(
    self,
    tokens_BxL: jax.Array,
    cache: Any = None,
    start: Any = 0,
    segments_BxL: jax.Array | None = None,
    train: bool = False,
  ) -> tuple[jax.Array, Any]:
    """Returns (logits (B, L, V) in float32, cache).

    Segments (data/packing.py:segments) are documents apart: each has positions of its own
    and sees itself alone. They are for passes without a cache.

    With a cache (`empty_cache`), the tokens stand at positions start, start + 1, ...,
    attend to what the cache holds before them, and the returned cache holds them too.
    """
    c = self.config
    init = nn.initializers.normal(c.init_std)
    of_table = nn.initializers.normal(c.embedding_std or c.init_std)
    table_VxD = self.param('embedding', of_table, (c.vocab_size, c.width), c.param_dtype)
    x_BxLxD = table_VxD[tokens_BxL].astype(c.compute_dtype)
    positions = start + jnp.arange(tokens_BxL.shape[1])
    if segments_BxL is not None:
      if cache is not None:
        raise ValueError('segments are for passes without a cache')
      positions = _positions_in(segments_BxL)
    x_BxLxD = c.position.make(c.parts, name='position')(x_BxLxD, positions)

    stack = c.stack
    if self.skip_zeros and self.by_layer:
      parts = dataclasses.replace(stack.parts, skip_zeros=True)
      stack = dataclasses.replace(stack, parts=parts)
    layers = stack.make(train, name='layers', apart=self.by_layer)
    x_BxLxD, cache = layers(x_BxLxD, cache, stack.angles(positions), start, segments_BxL)

    x_BxLxD = c.norm.make(c.parts, name='final_norm', train=train)(x_BxLxD)
    if c.tied_head:
      head_DxV = table_VxD.T
    else:
      head_DxV = self.param('head', init, (c.width, c.vocab_size), c.param_dtype)
    logits_BxLxV = ops.dense(x_BxLxD, head_DxV.astype(c.compute_dtype), jnp.float32)
    return logits_BxLxV, cache


def _positions_in(segments_BxL: jax.Array) -> jax.Array:
  """How many positions of the same segment come before each, (B, L)."""
  all_1xL = jnp.arange(segments_BxL.shape[1])[None]
  before_BxL = jnp.pad(segments_BxL[:, :-1], ((0, 0), (1, 0)), constant_values=-1)
  begins_BxL = jnp.where(segments_BxL != before_BxL, all_1xL, 0)
  return all_1xL - jax.lax.cummax(begins_BxL, axis=1)


def empty_cache(config: Any, batch: int, length: int) -> Any:
  """The mixers' states for `length` positions, stacked over the layers for `Decoder`."""
  return config.stack.empty_state(batch, length)


def apart(config: Any, variables: Any, cache: Any) -> tuple[Any, Any]:
  """(variables, cache) as Decoder(config, by_layer=True) has them.

  Of each layer arrays of its own, so that a product may read some rows of one: of stacked
  layers it would get a copy of its layer first.
  """
  of = {
    part: tree | {'layers': layers_apart(config.stack, tree['layers'])}
    for part, tree in variables.items()
    if 'layers' in tree
  }
  return variables | of, layers_apart(config.stack, cache)
