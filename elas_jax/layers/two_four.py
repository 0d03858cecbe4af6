"""The feed-forward of ELAS: squared ReLU whose result is pruned to 2:4."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from elas_jax.config.config import ModelConfig
from elas_jax.layers.linear import LINEARS
from elas_jax.ops.activation import squared_relu
from elas_jax.ops.linear import chain
from elas_jax.ops.two_four import Recipe, estimated_scale, two_four_feed_forward

ACTIVATIONS = 'activations'  # a collection that is kept only where somebody asks for it


def sow_activation(module: nn.Module, y: jax.Array | Callable[[], jax.Array]) -> None:
  """Keeps the activation that is, or would be, pruned, if somebody asked for it.

  `y` may be a function that computes it, where the layer itself does not hold it.
  """
  if module.is_mutable_collection(ACTIVATIONS) and not module.is_initializing():
    y = y() if callable(y) else y
    module.sow(
      ACTIVATIONS, 'y', y.reshape(-1, y.shape[-1]), lambda _, new: new, lambda: None
    )


class TwoFourSquaredReLU(nn.Module):
  """down(prune(relu(up(x))^2)) (ELAS, arXiv 2605.03667), for dense and low-rank maps."""

  config: ModelConfig

  @nn.compact
  def __call__(self, x_BxLxD: jax.Array) -> jax.Array:
    c, linear = self.config, LINEARS[self.config.linear]
    x_TxD = x_BxLxD.reshape(-1, c.width)
    up = linear(c.feed_forward_width, c, name='up').kernels(c.width)
    down = linear(c.width, c, name='down').kernels(c.feed_forward_width)
    # Where parameters are made nothing reads the result: no kernel need be built for it.
    which = 'xla' if self.is_initializing() else c.two_four_implementation
    recipe = Recipe(c.two_four_rule, c.two_four_backward, x_BxLxD.shape[1], which)
    key = scale = None
    if c.two_four_rule == 'mvue':
      key = self.make_rng('two_four')
    if c.two_four_rule.startswith('soft'):
      scale = self._scale(x_TxD, up, down)
    y_TxD = two_four_feed_forward(recipe, x_TxD, up, down, key, scale)
    sow_activation(self, lambda: squared_relu(chain(x_TxD, up)))
    return y_TxD.reshape(x_BxLxD.shape)

  def _scale(self, x_TxD: jax.Array, up: tuple, down: tuple) -> jax.Array:
    """The factor of the soft rules, estimated in training and then only read.

    soft_weights estimates it once, in the first pruned step; soft_activations every
    two_four_refresh micro-batches.
    """
    c = self.config
    scale = self.variable('buffers', 'scale', jnp.ones, ())
    passes = self.variable('buffers', 'passes', jnp.zeros, (), jnp.int32)
    if self.is_mutable_collection('buffers') and not self.is_initializing():
      once = c.two_four_rule == 'soft_weights'
      due = passes.value % (c.two_four_refresh if not once else 2**31 - 1) == 0
      estimate = lambda: estimated_scale(x_TxD, up, down[0] if once else None)
      scale.value = jax.lax.cond(due, estimate, lambda: scale.value)
      passes.value = passes.value + 1
    return scale.value
