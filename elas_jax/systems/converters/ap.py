"""A cycle of pruning that also takes negative weights which moved least (AP, 2212.06145).

Activating-while-Pruning goes with iterative magnitude pruning and lowers the share of ReLU
units that are zero for a batch. Of n weights alive in the linear maps, one cycle takes the

  floor((share - activating) n)   of smallest |w|, of all maps together, and of the rest the
  floor(activating n)             of smallest |w - w0| among those with w < 0

where w0 are the parameters at the start, and sets the rest, biases and norms to the start
again: all parameters and buffers are fresh ones of the run's seed, but for the masks. It is
then trained anew in its workdir, and converting that run is the next cycle. So the run must
have begun with fresh parameters; one from a `restore` or of another converter is refused.

As in the authors' code (Martin1937/Activate-While-Pruning), whose first cycle only trains.
It prunes weights of batch norms as well, here left alone, and takes one more negative
weight and those that tie with it. Equal scores: converters/pruning.py.
"""

import dataclasses
import math
from typing import Any, ClassVar

import numpy as np

from elas_jax.common.errors import UserError
from elas_jax.common.fields import inside
from elas_jax.systems.converters.common import Given
from elas_jax.systems.converters.pruning import (
  Arrays,
  masked_run,
  masks,
  smallest_of_all,
  tell,
  weights,
)
from elas_jax.systems.kinds import name_of
from elas_jax.systems.linears import LINEARS
from elas_jax.systems.linears.dense import Dense
from elas_jax.systems.linears.masked import Masked


@dataclasses.dataclass(frozen=True)
class AP:
  share: float = 0.2  # p: of the weights alive, those that a cycle takes
  activating: float = 0.02  # of the weights alive, those of them that are negative ones

  equal: ClassVar[bool] = False
  rewind: ClassVar[bool] = True
  fresh: ClassVar[bool] = True

  def check(self, where: str, config: Any) -> None:
    inside(where, self, 'share')
    if not 0 <= self.activating <= self.share:
      raise UserError(
        f'{where}.activating={self.activating!r}: must be between 0 and '
        f'{where}.share={self.share!r}, of which it is a part'
      )
    linear = config.model.linear
    if not isinstance(linear, Dense | Masked):
      raise UserError(
        f"model.linear={name_of(LINEARS, linear)!r}: must be 'dense' or 'masked', whose "
        'weights have a start'
      )

  def convert(self, given: Given) -> tuple[Any, dict[str, Any]]:
    fresh = dataclasses.replace(given, variables=given.start())
    alive = masks(given)
    kept = cycle(weights(given), weights(fresh), alive, self.share, self.activating)
    config, variables = masked_run(fresh, kept)
    before, now = (sum(int(x.sum()) for x in of.values()) for of in (alive, kept))
    given.say(f'{before} weights alive -> {now}, all set to their start')
    tell(given, variables)
    return config, variables


def cycle(w: Arrays, w0: Arrays, alive: Arrays, share: float, activating: float) -> Arrays:
  """What is alive after a cycle; maps by path, all of the same shapes."""
  count = sum(int(x.sum()) for x in alive.values())
  part = lambda share: math.floor(share * count + 1e-9)  # shares are sums of rounded ones
  only = lambda where, scores: np.where(where, scores, np.inf)
  sizes = {path: only(alive[path], np.abs(x)) for path, x in w.items()}
  gone = smallest_of_all(sizes, part(share - activating))
  left = {path: alive[path] & ~gone[path] for path in w}
  negative = {path: left[path] & (x < 0) for path, x in w.items()}
  moved = {path: only(negative[path], np.abs(x - w0[path])) for path, x in w.items()}
  most = sum(int(x.sum()) for x in negative.values())
  gone = smallest_of_all(moved, min(part(activating), most))
  return {path: left[path] & ~gone[path] for path in w}


CASES = (AP(), AP(0.5, 0.2))
# No truth: a cycle is compared with sorted lists in tests/systems/converters.
