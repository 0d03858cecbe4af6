"""A comparison of sides as a tree for JSON: configs, sizes, paired values, warnings.

Of several sides the first is compared with each of the others.
"""

import dataclasses
import math
import statistics
from collections.abc import Sequence
from typing import Any

from elas_jax.common.errors import UserError
from elas_jax.common.limits import quoted
from elas_jax.common.paired import NOT_KNOWN, paired
from elas_jax.config import schema
from elas_jax.config.config import Config
from elas_jax.run.ended import size_of
from elas_jax.run.record import LEFT_OUT, Recorded
from elas_jax.tables.comparison_warnings import COUNTS, warnings
from elas_jax.tables.sides import Side

Tree = dict[str, Any]

MATCHED = 0.01  # of the first side's
NOT_COMPARED = (*LEFT_OUT, 'seed')
SIZES = (  # name in the record's `size`, title
  ('parameters', 'parameters'),
  ('parameter_bytes', 'bytes of parameters'),
  ('buffer_bytes', 'bytes of buffers'),
  ('optimizer_bytes', 'bytes of the optimiser'),
  ('training_flops', 'training FLOPs of one {unit}'),
)


def comparison(
  sides: Sequence[Side], metrics: Sequence[str] | None = None, confidence: float = 0.95
) -> Tree:
  """All that is said of these sides.

  Args:
    metrics: names of values; None: those of the tables, or else all of evaluations.

  Raises:
    UserError: their tasks differ, or they have not these metrics in common.
  """
  tasks = {side.label: side.example.parsed.task for side in sides if side.example}
  if len(set(tasks.values())) > 1:
    said = ', '.join(f'{label} is {task}' for label, task in tasks.items())
    raise UserError(f'RUN: {said}: different tasks have no metric in common')
  result = {
    'sides': [_side(side) for side in sides],
    'config': config_rows(sides),
    'sizes': size_rows(sides),
    'pairs': [_pair(sides[0], other, metrics, confidence) for other in sides[1:]],
  }
  return result | {'warnings': warnings(sides, result)}


def scale_word(side: Side) -> str:
  """'PROXY' where the label of its table begins so, or another word in capitals, or ''."""
  words = {row.scale_label.partition(',')[0].partition(':')[0] for row in side.rows}
  return ', '.join(sorted(word for word in words if word.isupper()))


def _side(side: Side) -> Tree:
  runs = side.runs
  return {
    'label': side.label,
    'given': list(side.given),
    'seeds': sorted(runs),
    'fingerprints': {str(seed): run.fingerprint for seed, run in sorted(runs.items())},
    'commits': _places(side, 'short_commit'),
    'devices': _places(side, 'device'),
    'scale': scale_word(side),
    'scale_labels': list(dict.fromkeys(row.scale_label for row in side.rows)),
    'left_out': list(side.left_out),
    'config': side.example.config if side.example else None,
  }


def _places(side: Side, field: str) -> list[str]:
  return list(dict.fromkeys(getattr(run, field) or 'unknown' for run in side.runs.values()))


def config_rows(sides: Sequence[Side]) -> list[Tree]:
  """{field, values}: of each side; only fields that differ among those that are known."""
  known = [_leaves(side.example.parsed) if side.example else None for side in sides]
  rows = []
  for name in sorted(set().union(*(of for of in known if of))):
    texts = [of and of.get(name, '-') for of in known]
    if len({text for text in texts if text is not None}) > 1:
      rows.append({'field': name, 'values': texts})
  return rows


def _leaves(config: Config) -> dict[str, str]:
  return {
    path: str(value)
    for path, value, _ in schema.leaves(config)
    if path not in NOT_COMPARED and not path.startswith('eval.measures.')
  }


def size_rows(sides: Sequence[Side]) -> list[Tree]:
  """{title, values, more, matched}: the last two of all but the first side.

  `more` is the share of the first side's value by which another's is more.
  """
  configs = [side.example and side.example.parsed for side in sides]
  unit = next((unit_of(config) for config in configs if config), 'unit')
  of = [_size(side.example) if side.example else {} for side in sides]
  rows = [
    (title.format(unit=unit), [size.get(name) for size in of]) for name, title in SIZES
  ]
  seen = [config and units(config) for config in configs]
  rows.append((f'{unit}s of training', seen))
  flops = [size and size['training_flops'] * n for size, n in zip(of, seen)]
  rows.append(('training FLOPs of the run', [x or None for x in flops]))
  return [_size_row(title, values) for title, values in rows]


def _size_row(title: str, values: list[float | None]) -> Tree:
  first, *others = values
  more = [_more(value, first) for value in others]
  near = lambda value: abs(value - first) <= MATCHED * abs(first)
  matched = [None if x is None else near(value) for x, value in zip(more, others)]
  return {'title': title, 'values': values, 'more': more, 'matched': matched}


def _size(run: Recorded) -> dict[str, float]:
  names = [name for name, _ in SIZES]
  return run.size if all(name in run.size for name in names) else size_of(run.parsed)


def unit_of(config: Config) -> str:
  return 'token' if config.traits.text else 'example'


def units(config: Config) -> int:
  """Steps x batch, x length of sequences: tokens, with padding where there is some."""
  rows = config.train.steps * config.data.batch_size
  in_row = config.traits.sequences * config.length
  return rows * in_row if config.traits.text else rows


def _more(value: float | None, first: float | None) -> float | None:
  """By which share of the first it is more; None if not known."""
  if value is None or first is None:
    return None
  if not first:
    return math.inf if value else 0.0
  return value / first - 1


def _pair(first: Side, other: Side, asked: Sequence[str] | None, confidence: float) -> Tree:
  known = {m[0]: m for side in (other, first) for row in side.rows for m in row.metrics}
  values = []
  for name in _metrics(first, other, asked, list(known)):
    a, b = _values(first, name), _values(other, name)
    found = paired(a, b, confidence)
    means = [_mean(of, found.seeds) for of in (a, b)]
    numbers = [one['mean'] for one in means if one['mean'] is not None]
    _, title, digits = known.get(name, (name, name, decimals(numbers)))
    verdict = found.verdict(first.label, digits)
    values.append(
      {'name': name, 'title': title, 'digits': digits, 'sides': means, 'verdict': verdict}
      | dataclasses.asdict(found)
      | {'shown': found.shown}
    )
  both = sorted(first.runs.keys() & other.runs.keys())
  return {
    'sides': [first.label, other.label],
    'seeds': both,
    'unused': [
      sorted(one.runs.keys() - two.runs.keys())
      for one, two in ((first, other), (other, first))
    ],
    'scale': ', '.join(dict.fromkeys(filter(None, map(scale_word, (first, other))))),
    'confidence': confidence,
    'values': values,
    'verdict': '' if both else NOT_KNOWN,
  }


def _values(side: Side, name: str) -> dict[int, float | None]:
  return {seed: run.values.get(name) for seed, run in side.runs.items()}


def _mean(values: dict[int, float | None], seeds: Sequence[int]) -> Tree:
  """Over these seeds, or over all where there are none."""
  chosen = {s: values[s] for s in seeds} or values
  numbers = {s: x for s, x in chosen.items() if x is not None and math.isfinite(x)}
  return {
    'seeds': sorted(numbers),
    'mean': statistics.mean(numbers.values()) if numbers else None,
    'deviation': statistics.stdev(numbers.values()) if len(numbers) > 1 else None,
  }


def _metrics(
  first: Side, other: Side, asked: Sequence[str] | None, of_tables: list[str]
) -> list[str]:
  """Those asked for, else of the tables, else all of evaluations: that both sides have."""
  having = [_names(side) for side in (first, other) if side.runs]
  both = [name for name in having[0] if all(name in h for h in having)] if having else []
  if having and not both:
    raise UserError(f'{first.label} and {other.label}: no metric in common')
  for name in asked or () if having else ():
    if name not in both:
      raise UserError(
        f'--metrics={name}: {first.label} and {other.label} do not both have it; there '
        f'are {quoted(both)}'
      )
  evaluated = [n for n in both if n.startswith('eval/') and n not in COUNTS]
  return list(asked or [n for n in of_tables if n in both] or evaluated or both)


def _names(side: Side) -> list[str]:
  return list(dict.fromkeys(name for run in side.runs.values() for name in run.values))


def decimals(numbers: Sequence[float]) -> int:
  """With which the largest of them has five digits."""
  largest = max((abs(x) for x in numbers if x), default=1.0)
  return min(max(4 - math.floor(math.log10(largest)), 0), 12)
