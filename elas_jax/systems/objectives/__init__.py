"""What is added to the loss, by name, as `train.objectives` has it.

  loss = mean loss of the task + sum of coefficient(step) * objective.loss(seen)

Each has the fields of common.py:Objective, `coefficient` and `schedule`, and

  loss(seen)        the mean over the units of this (micro-)batch, a float32 scalar;
                    `seen` is systems/seen.py:Seen
  sown              names of systems/sown.py that it reads; a model in which no layer sows
                    them is refused
  check(where, config)

One whose coefficient depends on how it went so far keeps scalars in the train state:

  state()                              these at the start, {} unless there are some
  next_state(state, value, step)       after a step, of which `value` is the mean
  coefficient_at(step, steps, state)   what they are for

truth(kind, seen): the same in NumPy float64, of arrays.
"""

from elas_jax.systems.objectives.activation_locality import ActivationLocality
from elas_jax.systems.objectives.chunk_sparsity import ChunkSparsity
from elas_jax.systems.objectives.l1_activations import L1Activations
from elas_jax.systems.objectives.z_loss import ZLoss

OBJECTIVES = {
  'z_loss': ZLoss,
  'l1_activations': L1Activations,
  'activation_locality': ActivationLocality,
  'chunk_sparsity': ChunkSparsity,
}
