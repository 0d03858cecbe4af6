"""Activations, entry by entry: of classifiers, gates and Kolmogorov-Arnold layers.

  make(parts, name)   a function of an array, or a module where it has parameters, or draws
  gate(gate, up)      function(gate) * up, if it has a cheaper gradient than the formula
  zeros()             whether it is exactly zero for a range of inputs; by default not
  mixes_features()    whether an entry depends on others of the last axis, if any does

All but make need not be there. truth(kind, x, p), of a pass that does not train.
"""

from elas_jax.systems.activations.crrelu import CRReLU
from elas_jax.systems.activations.dra import DRA
from elas_jax.systems.activations.elu import Elu
from elas_jax.systems.activations.fatrelu import FATReLU
from elas_jax.systems.activations.gelu import Gelu
from elas_jax.systems.activations.leaky_relu import LeakyRelu
from elas_jax.systems.activations.none import Identity
from elas_jax.systems.activations.poly_norm import PolyNorm
from elas_jax.systems.activations.poly_relu import PolyReLU
from elas_jax.systems.activations.relu import Relu
from elas_jax.systems.activations.relu2 import Relu2
from elas_jax.systems.activations.selu import Selu
from elas_jax.systems.activations.sg_blend import SGBlend
from elas_jax.systems.activations.shifted_relu import ShiftedReLU
from elas_jax.systems.activations.sigmoid import Sigmoid
from elas_jax.systems.activations.silu import Silu
from elas_jax.systems.activations.softplus import Softplus
from elas_jax.systems.activations.swish import Swish
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
  'swish': Swish,
  'crrelu': CRReLU,
  'fatrelu': FATReLU,
  'shifted_relu': ShiftedReLU,
  'poly_relu': PolyReLU,
  'poly_norm': PolyNorm,
  'sg_blend': SGBlend,
  'dra': DRA,
}
