"""Learning rates of the proxy and smoke scales: the base of the grid, and the choice."""

import json
import math
import pathlib
from typing import Any

from elas_jax.errors import UserError

GRID = (0.5, 1.0, 2.0)  # times the base
BASE = {
  'full': 1e-3,
  'low_rank': 2e-3,
  'low_rank_relu2': 2e-3,
  'lora': 2e-3,
  'relora': 2e-3,
  'galore': 4e-3,
  'cola': 2e-3,
  'sltrain': 2e-3,
  'lost': 2e-3,
  'loro': 8e-3,
  'loro_relu2': 8e-3,
  'elas': 8e-3,
  'elas_adamw': 2e-3,
}
SAME_AS = {'cola_m': 'cola'}  # the same numbers by another route


def base_rate(method: str) -> float:
  return BASE[SAME_AS.get(method, method)]


def choose(entries: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
  """By method, the rate of the lowest mean validation bits per byte.

  Only methods whose whole grid is done; a run that diverged counts as infinite.
  """
  grids = {}
  for entry in entries:
    rate = entry['fields']['optimizer.learning_rate']
    status = {run['status'] for run in entry['runs']}
    score = entry['mean'].get('eval/bits_per_byte')
    if 'not run' in status:
      score = None
    elif 'diverged' in status:
      score = math.inf
    grids.setdefault(entry['method'], {})[rate] = score
  chosen = {}
  for method, grid in grids.items():
    if None in grid.values() or min(grid.values()) == math.inf:
      continue
    best = min(grid, key=grid.get)
    edge = best in (min(grid), max(grid))
    chosen[method] = {'learning_rate': best, 'at_the_edge_of_the_grid': edge}
  return chosen


def chosen_rate(method: str, path: pathlib.Path) -> float:
  """What experiments.learning_rates wrote to `path` for this method."""
  method = SAME_AS.get(method, method)
  chosen = json.loads(path.read_text())['summary'] if path.exists() else {}
  if method not in chosen:
    command = f'python -m experiments.learning_rates --scale={path.stem}'
    raise UserError(f'{path}: has no learning rate of {method}; first run {command}')
  return chosen[method]['learning_rate']
