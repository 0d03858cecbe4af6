"""tanh x."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from elas_jax.systems.activations.common import Plain


@dataclasses.dataclass(frozen=True)
class Tanh(Plain):
  function = staticmethod(jnp.tanh)


CASES = (Tanh(),)


def truth(kind, x, p):
  return np.tanh(x)
