"""What a trained model is made into, by name: `python -m elas_jax.convert`.

  check(where, config)   refuses a run, by its config, and fields that do not fit it
  convert(given)         (config, variables) of the new run, whose parameters have the
                         shapes of a fresh model of that config; `given` is
                         common.py:Given of the old one
  equal                  whether the outputs stay, but for rounding
  rewind                 whether its parameters are those of the start, so that training
                         and its phases begin again
  fresh                  whether they are what a fresh model of the new config has

The last two are False where they are not there.

`where` is 'converter'. The command checks the new config, says what changed and writes; a
converter says by `given.say` what else there is to be said. What cannot be converted is a
UserError, and then nothing is written.
"""

from elas_jax.systems.converters.ap import AP
from elas_jax.systems.converters.essential import Essential
from elas_jax.systems.converters.extend_grid import ExtendGrid
from elas_jax.systems.converters.gqa_to_mla import GQAToMLA
from elas_jax.systems.converters.layers import Layers
from elas_jax.systems.converters.merge import Merge
from elas_jax.systems.converters.merge_features import MergeFeatures
from elas_jax.systems.converters.prune import Prune
from elas_jax.systems.converters.replace_activation import ReplaceActivation
from elas_jax.systems.converters.width import Width

CONVERTERS = {
  'extend_grid': ExtendGrid,
  'merge': Merge,
  'gqa_to_mla': GQAToMLA,
  'replace_activation': ReplaceActivation,
  'prune': Prune,
  'essential': Essential,
  'ap': AP,
  'width': Width,
  'layers': Layers,
  'merge_features': MergeFeatures,
}
