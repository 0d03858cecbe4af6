"""Schedules by name: the learning rate, or a coefficient, at each step.

Each but half_sine_stages is a common.py:WarmUp, and has

  build(peak, steps)   step from 0 -> learning rate, of a run of so many steps

Fields of so many steps are made by kinds.py:phase. truth(kind, peak, steps, step): the
rate.
"""

from elas_jax.systems.schedules.constant import Constant
from elas_jax.systems.schedules.cosine import Cosine
from elas_jax.systems.schedules.cosine_restarts import CosineRestarts
from elas_jax.systems.schedules.displaced_cosine_restarts import DisplacedCosineRestarts
from elas_jax.systems.schedules.half_sine_stages import HalfSineStages
from elas_jax.systems.schedules.wsd import Wsd
from elas_jax.systems.schedules.wsdc import Wsdc

SCHEDULES = {
  'constant': Constant,
  'cosine': Cosine,
  'wsd': Wsd,
  'wsdc': Wsdc,
  'cosine_restarts': CosineRestarts,
  'displaced_cosine_restarts': DisplacedCosineRestarts,
  'half_sine_stages': HalfSineStages,
}
