"""Learning rates of the proxy and smoke scales: the base of the grid, and the choice."""

import json
import math
import pathlib
from collections.abc import Callable
from typing import Any

from elas_jax.common.errors import UserError

RATE = 'optimizer.learning_rate'
GRID = (0.5, 1.0, 2.0)  # times the base
EXTENSIONS = 2  # in each direction, by a factor of 2, while the best is at the edge
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


def next_factor(scores: dict[float, float | None]) -> float | None:
  """What a grid {factor: score} lacks: one beyond its edge, if the lowest score is there.

  None if the best is inside, the grid has all its extensions, or a score is not known.
  """
  if None in scores.values():
    return None
  best = min(scores, key=lambda factor: (scores[factor], factor))
  low, high = min(scores), max(scores)
  if best == low and low > min(GRID) / 2**EXTENSIONS:
    return low / 2
  if best == high and high < max(GRID) * 2**EXTENSIONS:
    return high * 2
  return None


def grown(score: Callable[[float], float | None]) -> list[float]:
  """Factors of a grid, as far as the scores of those that are known ask for them."""
  grid = {factor: score(factor) for factor in GRID}
  while factor := next_factor(grid):
    grid[factor] = score(factor)
  return sorted(grid)


def choose(
  entries: list[dict[str, Any]],
  metric: str = 'eval/bits_per_byte',
  name: Callable[[dict[str, Any]], str] = lambda entry: entry['method'],
) -> dict[str, dict[str, Any]]:
  """By method, or another name of an entry, the rate of the lowest mean of the metric.

  Only methods whose whole grid is done; a run that diverged counts as infinite.
  """
  grids = {}
  for entry in entries:
    rate = entry['fields'][RATE]
    status = {run['status'] for run in entry['runs']}
    score = entry['mean'].get(metric)
    if 'not run' in status:
      score = None
    elif 'diverged' in status:
      score = math.inf
    grids.setdefault(name(entry), {})[rate] = score
  chosen = {}
  for method, grid in grids.items():
    if None in grid.values() or min(grid.values()) == math.inf:
      continue
    best = min(grid, key=grid.get)
    edge = best in (min(grid), max(grid))
    chosen[method] = {'learning_rate': best, 'at_the_edge_of_the_grid': edge}
  return chosen


def conclude(
  entries: list[dict[str, Any]],
  metric: str = 'eval/bits_per_byte',
  name: Callable[[dict[str, Any]], str] = lambda entry: entry['method'],
) -> tuple[dict[str, dict[str, Any]], list[str]]:
  """`choose`, and as lines of text."""
  chosen = choose(entries, metric, name)
  edge = lambda x: ', at the edge of the grid' if x['at_the_edge_of_the_grid'] else ''
  return chosen, [f'{n}: {x["learning_rate"]:g}{edge(x)}' for n, x in chosen.items()]


def all_chosen(path: pathlib.Path) -> dict[str, dict[str, Any]]:
  return json.loads(path.read_text())['summary'] if path.exists() else {}


def at_the_edge(method: str, chosen: dict[str, dict[str, Any]]) -> float | None:
  """The chosen rate of a method, if it is at the edge of its grid."""
  found = chosen.get(SAME_AS.get(method, method), {})
  return found['learning_rate'] if found.get('at_the_edge_of_the_grid') else None


def chosen_rate(method: str, path: pathlib.Path) -> float:
  """What experiments.learning_rates wrote to `path` for this method."""
  method = SAME_AS.get(method, method)
  chosen = all_chosen(path)
  if method not in chosen:
    command = f'python -m experiments.{path.parent.name} --scale={path.stem}'
    raise UserError(f'{path}: has no learning rate of {method}; first run {command}')
  return chosen[method]['learning_rate']
