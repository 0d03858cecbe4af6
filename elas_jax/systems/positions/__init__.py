"""How a network learns of positions, by name.

make(parts, name)                adds to the input of the first layer: a function or a
                                 module (x_BxLxD, positions) -> x_BxLxD
angles(positions, head_size)     what `rotate` needs, computed once for all layers
rotate(x_BxLxHxK, angles)        queries or keys of these positions
pairs() -> bool                  whether pairs of entries are turned: K must be even
limit(parts) -> int              positions that there are, if not any number

Positions are (L,), or (B, L) where rows have different ones.

common.py:Position adds and turns nothing. truth(kind, x_BxLxHxK, start): of `rotate`, and
added(kind, x_BxLxD, p, start): of `make`, where it adds; of positions start, start + 1, ...
"""

from elas_jax.systems.positions.learned import Learned
from elas_jax.systems.positions.none import NoPosition
from elas_jax.systems.positions.rope import Rope

POSITIONS = {'rope': Rope, 'learned': Learned, 'none': NoPosition}
