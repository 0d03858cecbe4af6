"""What is looked at, by name: in training (`eval.measures`) and of a workdir afterwards.

  measure(seen)     values by name, each a number or an array (N,) over the layers; `seen`
                    is systems/seen.py:Seen of one batch of the validation split. Compiled.
  sown              names of systems/sown.py that it reads
  optional          those of them that no layer need sow
  lacking(config)   why there is nothing to measure in this model, '' if there is, beside
                    that no layer sows what it reads
  shown             value -> how a line of progress says it, such as 'zeros {:.1%}'; these
                    are plotted as well. By default all values, as they are
  title             of its plots, by default its name
  check(where, config)

of one whose values follow a curve over the evaluations of a run,

  fits              the names of these values
  fitted(steps, y)  common.py:Curve of y (E,) at steps (E,)
  least             the fewest points, E, that a curve is fitted to

and, of a measure that compares two steps of a training,

  kept(seen)                what it keeps of an evaluation for the step that follows
  change(before, now, seen) values, from what it kept then and would keep now

All but measure need not be there. truth(kind, seen): `measure` in NumPy float64, of arrays.
"""

from elas_jax.systems.measures.activations import Activations
from elas_jax.systems.measures.codes import Codes
from elas_jax.systems.measures.dead_neurons import DeadNeurons
from elas_jax.systems.measures.massive import Massive
from elas_jax.systems.measures.ppl_sparsity import PPLSparsity
from elas_jax.systems.measures.sparsity import Sparsity
from elas_jax.systems.measures.spectrum import Spectrum

MEASURES = {
  'activations': Activations,
  'spectrum': Spectrum,
  'sparsity': Sparsity,
  'ppl_sparsity': PPLSparsity,
  'dead_neurons': DeadNeurons,
  'massive': Massive,
  'codes': Codes,
}
