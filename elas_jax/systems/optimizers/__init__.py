"""Optimisers by name: how gradients become updates.

Each is a common.py:Common, which has the fields that the loop reads, and has

  build(training)   the optax transformation of a kinds.py:Training; training.descend puts
                    directions, weight decay and learning rate together
  on_dense()        if it steps on pairs of factors: the optimiser that goes on when these
                    are merged into dense maps

truth(kind, params, gradients, rates): the parameters after these steps; gradients are
functions of the parameters.
"""

from elas_jax.systems.optimizers.adamw import Adamw
from elas_jax.systems.optimizers.galore import Galore
from elas_jax.systems.optimizers.loro import Loro
from elas_jax.systems.optimizers.sgd import Sgd

OPTIMIZERS = {
  'adamw': Adamw,
  'sgd': Sgd,
  'loro': Loro,
  'galore': Galore,
}
