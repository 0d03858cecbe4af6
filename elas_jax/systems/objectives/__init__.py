"""What is added to the loss, by name, as `train.objectives` has it.

  loss = mean loss of the task + sum of coefficient(step) * objective.loss(seen)

Each has the fields of common.py:Objective, `coefficient` and `schedule`, and

  loss(seen)        the mean over the units of this (micro-)batch, a float32 scalar;
                    `seen` is systems/seen.py:Seen
  sown              names of systems/sown.py that it reads; a model in which no layer sows
                    them is refused
  check(where, config)

truth(kind, seen): the same in NumPy float64, of arrays.
"""

from elas_jax.systems.objectives.l1_activations import L1Activations
from elas_jax.systems.objectives.z_loss import ZLoss

OBJECTIVES = {'z_loss': ZLoss, 'l1_activations': L1Activations}
