"""How activations are pruned to 2:4, by the rule that chooses the kept two of four.

  build(length, implementation)    the ops/two_four.py:Recipe of sequences of that length
  given(module, x_TxD, up, down)   the keyword arguments that its operation needs besides,
                                   drawn or estimated by `module`, the feed-forward
  prune(kind, y, p)                the pruned y in NumPy float64

The rule 'transposable' of pallas_kernels is no kind: its mask is chosen over four tokens,
so in the forward pass it would show a token those after it. As a backward pass of top2 it
does not.
"""

from elas_jax.systems.two_four.mvue import MVUE
from elas_jax.systems.two_four.soft_activations import SoftActivations
from elas_jax.systems.two_four.soft_weights import SoftWeights
from elas_jax.systems.two_four.top2 import Top2

RECIPES = {
  'top2': Top2,
  'mvue': MVUE,
  'soft_weights': SoftWeights,
  'soft_activations': SoftActivations,
}
