"""What is looked at, by name: in training (`eval.measures`) and of a workdir afterwards.

  measure(seen)     values by name, each a number or an array (N,) over the layers; `seen`
                    is systems/seen.py:Seen of one batch of the validation split. Compiled.
  sown              names of systems/sown.py that it reads
  lacking(config)   why there is nothing to measure in this model, '' if there is; by
                    default, that no layer sows what it reads
  shown             value -> how a line of progress says it, such as 'zeros {:.1%}'; these
                    are plotted as well. By default all values, as they are
  title             of its plots, by default its name
  check(where, config)

and, of a measure that compares two steps of a training,

  kept(seen)                what it keeps of an evaluation for the step that follows
  change(before, now, seen) values, from what it kept then and would keep now

All but measure need not be there. truth(kind, seen): `measure` in NumPy float64, of arrays.
"""

from elas_jax.systems.measures.activations import Activations
from elas_jax.systems.measures.spectrum import Spectrum

MEASURES = {'activations': Activations, 'spectrum': Spectrum}
