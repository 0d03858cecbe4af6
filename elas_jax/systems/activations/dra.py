"""x + a sin^2(x / b) + c cos(b x) + d tanh(b x), all trained (DRA, arXiv 2408.14915).

The dynamic range activator of 'Can Transformers Do Enumerative Geometry?', for recursive
functions of a wide range. The formula is the paper's; the authors' code has two others,
with a / b before a sin^2(a x), and with b / a, and a for b in the cosine. As there, a, b, c
and d start standard normal, those of each layer anew: a b near 0 makes it steep.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from elas_jax.systems.activations.common import Starts, Trained


@dataclasses.dataclass(frozen=True)
class DRA(Trained):
  def starts(self) -> Starts:
    return dict.fromkeys(NO_DECAY, (nn.initializers.normal(1.0), ()))

  def formula(
    self, x: jax.Array, a: jax.Array, b: jax.Array, c: jax.Array, d: jax.Array
  ) -> jax.Array:
    waves = a * jnp.square(jnp.sin(x / b)) + c * jnp.cos(b * x)
    return x + waves + d * jnp.tanh(b * x)


NO_DECAY = ('a', 'b', 'c', 'd')
AXES = dict.fromkeys(NO_DECAY, ())
CASES = (DRA(),)


def truth(kind, x, p):
  a, b, c, d = (p[name] for name in NO_DECAY)
  return x + a * np.sin(x / b) ** 2 + c * np.cos(b * x) + d * np.tanh(b * x)
