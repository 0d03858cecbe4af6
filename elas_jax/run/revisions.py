"""What has been put right since runs were recorded, where their configs do not say it.

A run is known by its config. Where the code behind a config computed something else than
it said, and now does not, the runs of before are none of that config: they lack the
revision, so none is taken for a finished one, and a table says so without their values.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

from elas_jax.config.config import Config
from elas_jax.systems.linears.lost import LOST
from elas_jax.systems.optimizers.galore import Galore
from elas_jax.systems.optimizers.loro import Loro
from elas_jax.systems.schedules.cosine_restarts import CosineRestarts
from elas_jax.systems.schedules.displaced_cosine_restarts import DisplacedCosineRestarts


class Revision(NamedTuple):
  concerns: Callable[[Config], bool]
  before: str  # what the runs were made with
  was: Callable[[Config], Config] = lambda config: config  # what their configs said


def _with_restarts(config: Config) -> Config:
  """With the schedule of ReLoRA, which LORO's runs had before its own was known."""
  new = config.schedule
  if not isinstance(new, DisplacedCosineRestarts):
    return config
  shared = {x.name: getattr(new, x.name) for x in dataclasses.fields(CosineRestarts)}
  return dataclasses.replace(config, schedule=CosineRestarts(**shared))


REVISIONS = {
  'loro_step': Revision(
    lambda config: isinstance(config.optimizer, Loro),
    "LORO's exact step less dN's term, (U^T G V) V^T, where the published one is less "
    "dM's, and with epsilon after Adam's bias correction, not before it",
    _with_restarts,
  ),
  'galore_epsilon': Revision(
    lambda config: isinstance(config.optimizer, Galore),
    "epsilon after Adam's bias correction, where GaLore's code has it before",
  ),
  'relora_restarts': Revision(
    lambda config: isinstance(config.schedule, CosineRestarts),
    "restarts of the learning rate that rose by another formula than ReLoRA's code has",
  ),
  'lost_columns': Revision(
    lambda config: isinstance(config.model.linear, LOST),
    "a sparse part that started as the remainder's columns, where LOST's are those of the "
    'dense start',
  ),
}


def revisions(config: Config) -> tuple[str, ...]:
  """Names of those that concern the runs of a config."""
  return tuple(name for name, x in REVISIONS.items() if x.concerns(config))


def older(config: Config) -> Config:
  """What the config of this run was before all revisions."""
  for name in revisions(config):
    config = REVISIONS[name].was(config)
  return config
