"""What has been put right since results were recorded, where their configs do not say it.

A run is known by its config. Where the code behind a config computed something else than
it said, and now does not, the runs of before are none of that config: their fingerprint
lacks the revision, so none is taken for a finished one, and a table keeps them beside the
run that is still to be made, as `before`, without showing their values.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from elas_jax.config.config import Config
from elas_jax.systems.linears.lost import LOST
from elas_jax.systems.optimizers.galore import Galore
from elas_jax.systems.optimizers.loro import Loro
from elas_jax.systems.schedules.cosine_restarts import CosineRestarts


@dataclasses.dataclass(frozen=True)
class Revision:
  concerns: Callable[[Config], bool]
  before: str  # what the runs were made with


REVISIONS = {
  'loro_step': Revision(
    lambda config: isinstance(config.optimizer, Loro),
    "LORO's exact step less dN's term, (U^T G V) V^T, where the published one is less "
    "dM's, and with epsilon after Adam's bias correction, not before it",
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


def revisions(config: Config) -> list[str]:
  """Names of those that concern the runs of a config."""
  return [name for name, revision in REVISIONS.items() if revision.concerns(config)]


def with_before(
  outcome: dict[str, Any], old: dict[str, Any] | None, config: Config
) -> dict[str, Any]:
  """A run that is not made, with what its table has of before a revision, if anything."""
  if outcome['status'] != 'not run' or old is None:
    return outcome
  old = old.get('before', old)
  lacks = [name for name in revisions(config) if name not in old.get('revisions', ())]
  if old['status'] == 'not run' or not lacks:
    return outcome
  return outcome | {'lacks': lacks, 'before': old}


def lines(entries: list[dict[str, Any]]) -> list[str]:
  """Which rows of a table have runs of before, and before what."""
  rows = {}
  for entry in entries:
    for name in {name: None for run in entry['runs'] for name in run.get('lacks', ())}:
      rows.setdefault(name, []).append(entry['label'])
  return [
    f'Not shown until they are made again: runs of {", ".join(labels)}, made with '
    f'{REVISIONS[name].before} (revision {name}). They are in the JSON, as `before`.'
    for name, labels in rows.items()
  ]
