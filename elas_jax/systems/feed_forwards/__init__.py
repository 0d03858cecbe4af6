"""Feed-forwards by name: each maps (B, L, D) to (B, L, D) through width F.

  make(parts, name)   the module
  maps(parts)      the linear maps by name, inner(parts) the kinds of other modules inside;
                   the first of two maps gets parts with `opening`
  at_step(step)    the kind of one step (from 1), with the same parameters; itself unless
                   a kind has phases; after(step) the kind of a run that starts anew
                   with what it has become by then
  zeros()          whether of what enters the last map many entries may be exactly zero, so
                   that decoding can pass over them (parts.skip_zeros)
  probed()         whether the activation that it sows is y >= 0, for the statistics of 2:4
  notes(parts, length)   lines that a run prints at its start

All but make and maps need not be there. Each sows what enters its last map (sown.py).
truth(kind, x, p, linear), `linear` a map's (x, p).
"""

from elas_jax.systems.feed_forwards.block import Block
from elas_jax.systems.feed_forwards.glu import GLU
from elas_jax.systems.feed_forwards.kat import KAT
from elas_jax.systems.feed_forwards.mlp import MLP
from elas_jax.systems.feed_forwards.relu2_two_four import TwoFourSquaredReLU
from elas_jax.systems.feed_forwards.top_k import TopK

FEED_FORWARDS = {
  'glu': GLU,
  'mlp': MLP,
  'relu2_two_four': TwoFourSquaredReLU,
  'kat': KAT,
  'top_k': TopK,
  'block': Block,
}
