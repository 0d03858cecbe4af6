"""How mixers learn of positions, by name.

angles(positions_L, head_size)   what `rotate` needs, computed once for all layers
rotate(x_BxLxHxK, angles)        queries or keys of these positions
pairs() -> bool                  whether pairs of entries are turned: K must be even

truth(kind, x_BxLxHxK, start): of the positions start, start + 1, ...
"""

from elas_jax.systems.positions.none import NoPosition
from elas_jax.systems.positions.rope import Rope

POSITIONS = {'rope': Rope, 'none': NoPosition}
