"""What mixes the positions of a sequence, by name.

A module maps (x_BxLxD, angles, state, start) to (y_BxLxD, state). `angles` come from the
kind of position; `state` holds what came before position `start` (`empty_state`), None
keeps nothing.

  make(parts, name)                  the module
  maps(parts)                        the linear maps by name, inner(parts) the kinds of
                                     other modules inside
  head_size(parts)                   K of what is rotated, for the angles
  empty_state(parts, batch, length)  of one layer
  flops(parts, length)               FLOPs of a token beside those of the maps
  segments() -> bool                 whether the module takes segments_BxL as well, numbers
                                     that do not fall along a row: a position then sees its
                                     own number alone. Else data.document_mask is refused

In a network without parts.causal a position sees all others, and there is no state.

All but inner and segments must be there. truth(kind, x, p, linear, position): `linear` is
a map's (x, p), `position` turns (B, L, H, K).
"""

from elas_jax.systems.mixers.gqa import GQA
from elas_jax.systems.mixers.linear_attention import LinearAttention
from elas_jax.systems.mixers.mha import MHA
from elas_jax.systems.mixers.mla import MLA
from elas_jax.systems.mixers.mqa import MQA
from elas_jax.systems.mixers.sqa import SQA
from elas_jax.systems.mixers.ssqa import SSQA
from elas_jax.systems.mixers.xsmqa import XSMQA
from elas_jax.systems.mixers.xsqa import XSQA

MIXERS = {
  'mha': MHA,
  'gqa': GQA,
  'mqa': MQA,
  'sqa': SQA,
  'ssqa': SSQA,
  'xsqa': XSQA,
  'xsmqa': XSMQA,
  'mla': MLA,
  'linear_attention': LinearAttention,
}
