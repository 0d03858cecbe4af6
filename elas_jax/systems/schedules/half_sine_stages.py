"""Two levels, then half a sine from one level to the next (ProSparse, arXiv 2402.13516).

Stage i ends at step T_i and has the share v_i of the peak at its end:

  step < T_0               v_0
  T_0 <= step < T_1        v_1
  T_(i-1) <= step < T_i    v_(i-1) + (v_i - v_(i-1)) / 2 (1 + sin(pi (u - 1/2)))

with u from 0 to 1 in the stage, and the last v after it. The rise is checked against the
code that the authors published with BlockFFN (arXiv 2507.08771).

With it l1_activations is ProSparse: of a trained model with SwiGLU the activation becomes
a ReLU (the converter replace_activation), then it is trained on with

  --config.train.objectives=l1_activations
  --config.train.objectives.l1_activations.coefficient=...
  --config.train.objectives.l1_activations.schedule=half_sine_stages

and at last the activation becomes fatrelu. The coefficient stands in l1_activations.py.
Published (v times the peak, end in steps), of LLaMA2

  7B    0:5000, 5e-3:6000, 5e-2:10000, 5e-2:12000, 0.2:16000, 0.2:16500
  13B   0:5500, 5e-3:6750, 1e-2:10750, 1e-2:11000, 2e-2:15000, 2e-2:16000
"""

import dataclasses
import math
from typing import Any

import jax.numpy as jnp
import optax

from elas_jax.common.errors import UserError
from elas_jax.common.limits import shown
from elas_jax.systems.kinds import starts

PUBLISHED = '0:0.30303,0.025:0.36364,0.25:0.60606,0.25:0.72727,1:0.9697,1:1.0'


def in_steps(text: str, where: str, steps_of: Any, steps: int) -> str:
  """The stages with ends in steps; a text that is none of that stays, for `check`."""
  del where, steps_of  # 1.0 is a share here, all of them
  try:
    levels, ends = _read(text, steps)
  except (ValueError, OverflowError):
    return text
  return ','.join(f'{level:g}:{end}' for level, end in zip(levels, ends))


def _read(text: str, steps: int) -> tuple[list[float], list[int]]:
  """(v_i, T_i) in a run of so many steps; ValueError where the text is none of that."""
  levels, ends = [], []
  for stage in text.split(','):
    level, end = stage.split(':')
    levels.append(float(level))
    ends.append(round(float(end) * steps) if '.' in end else int(end))
  return levels, ends


@dataclasses.dataclass(frozen=True)
class HalfSineStages:
  # SHARE:END of each stage, joined by commas; shares of the peak, and ends that are steps
  # or, with a point in them, shares of train.steps. The default is that of the 7B model.
  stages: str = starts(in_steps, PUBLISHED)

  def check(self, where: str, config: Any) -> None:
    field, steps = f'{where}.stages={shown(self.stages)}', config.train.steps
    try:
      levels, ends = _read(self.stages, steps)
    except (ValueError, OverflowError):
      raise UserError(
        f"{field}: must be pairs SHARE:END joined by commas, such as '0:500,0.5:0.8,1:1.0'"
      ) from None
    if not all(0 <= level <= 1 for level in levels):
      raise UserError(f'{field}: its shares of the peak must be between 0 and 1')
    if ends[0] < 0 or sorted(ends) != ends or ends[-1] > steps:
      shown_ends = ', '.join(map(str, ends))
      raise UserError(
        f'{field}: its ends {shown_ends} must ascend and be at most train.steps={steps}'
      )

  def build(self, peak: float, steps: int) -> optax.Schedule:
    levels, ends = _read(self.stages, steps)
    before = [levels[0], *levels[1:2], *levels[1:-1]]  # where each stage begins

    def schedule(step):
      share = jnp.full(jnp.shape(step), levels[0])
      for i in range(1, len(ends)):
        length = ends[i] - ends[i - 1]
        u = jnp.clip((step - ends[i - 1]) / length, 0, 1) if length else 1.0
        rise = (levels[i] - before[i]) / 2 * (1 - jnp.cos(math.pi * u))
        share = jnp.where(step >= ends[i - 1], before[i] + rise, share)
      return peak * share

    return schedule


CASES = (
  HalfSineStages('0.5:4,0.6:8,1:16'),
  HalfSineStages('0:6,0.025:7,0.25:12,0.25:14,1:19,1:20'),
  HalfSineStages('0.2:0,1:5,0.4:5,0.3:19'),
  HalfSineStages('1:20'),
  HalfSineStages('0.3:5,0.7:5,1:5'),
)


def truth(kind: HalfSineStages, peak: float, steps: int, step: int) -> float:
  pairs = [stage.split(':') for stage in kind.stages.split(',')]
  levels = [float(level) for level, _ in pairs]
  ends = [round(float(end) * steps) if '.' in end else int(end) for _, end in pairs]
  i = sum(step >= end for end in ends)  # those that are over
  if i == len(ends):
    return peak * levels[-1]
  if i < 2:
    return peak * levels[i]
  u = (step - ends[i - 1]) / (ends[i] - ends[i - 1])
  rise = (levels[i] - levels[i - 1]) / 2
  return peak * (levels[i - 1] + rise * (1 + math.sin(math.pi * (u - 0.5))))
