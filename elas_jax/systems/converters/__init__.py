"""What a trained model is made into, by name: `python -m elas_jax.convert`.

  check(where, config)   refuses a run, by its config, and fields that do not fit it
  convert(given)         (config, variables) of the new run, whose parameters have the
                         shapes of a fresh model of that config; `given` is
                         common.py:Given of the old one
  equal                  whether the outputs stay, but for rounding

`where` is 'converter'. The command checks the new config, says what changed and writes; a
converter says by `given.say` what else there is to be said. What cannot be converted is a
UserError, and then nothing is written.
"""

from elas_jax.systems.converters.extend_grid import ExtendGrid
from elas_jax.systems.converters.gqa_to_mla import GQAToMLA
from elas_jax.systems.converters.merge import Merge

CONVERTERS = {'extend_grid': ExtendGrid, 'merge': Merge, 'gqa_to_mla': GQAToMLA}
