"""Feed-forward layers by name. Each maps (B, L, D) to (B, L, D) through width F."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from elas_jax.config.config import ModelConfig
from elas_jax.layers.linear import LINEARS
from elas_jax.layers.rational import GroupRational
from elas_jax.layers.two_four import TwoFourSquaredReLU, sow_activation
from elas_jax.ops.activation import squared_relu, swiglu


class SwiGLU(nn.Module):
  """down(silu(gate(x)) * up(x)) (arXiv 2002.05202), the feed-forward of LLaMA."""

  config: ModelConfig
  combine = staticmethod(swiglu)

  @nn.compact
  def __call__(self, x_BxLxD: jax.Array) -> jax.Array:
    c, linear = self.config, LINEARS[self.config.linear]
    gate_BxLxF = linear(c.feed_forward_width, c, name='gate')(x_BxLxD)
    up_BxLxF = linear(c.feed_forward_width, c, name='up')(x_BxLxD)
    y_BxLxF = self.combine(gate_BxLxF, up_BxLxF)
    return linear(c.width, c, name='down')(y_BxLxF)


class Bilinear(SwiGLU):
  """down(gate(x) * up(x)) (arXiv 2002.05202): SwiGLU without its SiLU, for CoLA."""

  combine = staticmethod(jnp.multiply)


class SquaredReLU(nn.Module):
  """down(relu(up(x))^2) (arXiv 2109.08668), ungated: the feed-forward of ELAS and PLM."""

  config: ModelConfig

  @nn.compact
  def __call__(self, x_BxLxD: jax.Array) -> jax.Array:
    c, linear = self.config, LINEARS[self.config.linear]
    h_BxLxF = linear(c.feed_forward_width, c, name='up')(x_BxLxD)
    y_BxLxF = squared_relu(h_BxLxF)
    sow_activation(self, y_BxLxF)
    return linear(c.width, c, name='down')(y_BxLxF)


class Kat(nn.Module):
  """down(F_2(up(F_1(x)))) with group-rational F, of KAT (arXiv 2409.10594).

  F_1 starts as the identity and F_2 as swish; see layers/rational.py. Up and down are of
  the linear kind of the decoder.
  """

  config: ModelConfig

  @nn.compact
  def __call__(self, x_BxLxD: jax.Array) -> jax.Array:
    c, linear = self.config, LINEARS[self.config.linear]
    rational = lambda preset, name: GroupRational(
      c.rational_groups, preset, param_dtype=c.param_dtype, name=name
    )
    x_BxLxD = rational('identity', 'rational_1')(x_BxLxD)
    h_BxLxF = linear(c.feed_forward_width, c, name='up')(x_BxLxD)
    y_BxLxF = rational('swish', 'rational_2')(h_BxLxF)
    return linear(c.width, c, name='down')(y_BxLxF)


FEED_FORWARDS = {
  'swiglu': SwiGLU,
  'bilinear': Bilinear,
  'relu2': SquaredReLU,
  'relu2_two_four': TwoFourSquaredReLU,
  'kat': Kat,
}
