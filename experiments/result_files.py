"""What the JSON files of the tables have of runs, and how these are found again."""

import json
import pathlib
from typing import Any

from elas_jax.common.errors import UserError
from experiments import stored_configs


def recorded(path: pathlib.Path) -> dict[str, dict[str, Any]]:
  """Fingerprint -> outcome of what the result file at `path` has; {} without a file.

  The folder of the runs is in no commit. So a result file is also where a clone finds
  what has been run, and where calls with other folders of runs find each other's. The
  fingerprint is what the stored config has today, not the name that the outcome has; runs
  without a stored config (experiments/stored_configs.py) are left out. Those of before a
  revision, which a table only keeps, have a fingerprint without it.
  """
  configs = stored_configs.read(path.parent.parent)
  return {
    stored_configs.key(configs[run['fingerprint']], run.get('revisions', ())): run
    for run in _done(path)
    if run.get('fingerprint') in configs
  }


def check_recognised(path: pathlib.Path, found: set[tuple[str, str, int]]) -> None:
  """Refuses to write over runs of the result file at `path` that nothing recognises.

  `found` are label, size and seed of what is done. Runs of which there is no stored config
  can only be found in their folders.
  """
  configs = stored_configs.read(path.parent.parent)
  lost = [
    (label, size, seed)
    for (label, size), runs in runs_of_file(path).items()
    for seed, run in runs.items()
    if run['status'] != 'not run' and run.get('fingerprint') not in configs
  ]
  if lost := [x for x in lost if x not in found]:
    raise UserError(
      f'{path}: of {len(lost)} runs, {lost[0]} the first, there is no config in '
      f'{path.parent.parent}/configs.jsonl and no folder; give --results=DIR for new ones'
    )


def _done(path: pathlib.Path) -> list[dict[str, Any]]:
  rows = json.loads(path.read_text())['rows'] if path.exists() else []
  runs = [run.get('before', run) for row in rows for run in row['runs']]
  return [run for run in runs if run['status'] != 'not run']


def recorded_by_tables(path: pathlib.Path) -> dict[str, dict[str, Any]]:
  """`recorded` of all tables beside the one at `path`, at its scale: they share runs."""
  found = {}
  for other in sorted(path.parent.parent.glob(f'*/{path.name}')):
    found |= recorded(other)
  return found | recorded(path)


def runs_of_file(path: pathlib.Path) -> dict[tuple[str, str], dict[int, dict[str, Any]]]:
  """(Label, size) -> seed -> what the result file at `path` has of the run, done or not."""
  rows = json.loads(path.read_text())['rows'] if path.exists() else []
  return {(x['label'], x['size']): {r['seed']: r for r in x['runs']} for x in rows}
