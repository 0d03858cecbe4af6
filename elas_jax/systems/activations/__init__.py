"""Activations, entry by entry: of classifiers, gates and Kolmogorov-Arnold layers.

  make(parts, name)   a function of an array, or a module where it has parameters
  gate(gate, up)      function(gate) * up, if it has a cheaper gradient than the formula
  zeros()             whether it is exactly zero for a range of inputs; by default not

truth(kind, x, p).
"""

from elas_jax.systems.activations.elu import Elu
from elas_jax.systems.activations.gelu import Gelu
from elas_jax.systems.activations.leaky_relu import LeakyRelu
from elas_jax.systems.activations.none import Identity
from elas_jax.systems.activations.relu import Relu
from elas_jax.systems.activations.relu2 import Relu2
from elas_jax.systems.activations.selu import Selu
from elas_jax.systems.activations.sigmoid import Sigmoid
from elas_jax.systems.activations.silu import Silu
from elas_jax.systems.activations.softplus import Softplus
from elas_jax.systems.activations.tanh import Tanh

ACTIVATIONS = {
  'none': Identity,
  'relu': Relu,
  'relu2': Relu2,
  'gelu': Gelu,
  'silu': Silu,
  'softplus': Softplus,
  'sigmoid': Sigmoid,
  'leaky_relu': LeakyRelu,
  'elu': Elu,
  'selu': Selu,
  'tanh': Tanh,
}
