"""The tiles that are tried for each kernel and shape."""

import contextlib
import dataclasses
import functools
from typing import Any

import jax

from pallas_kernels.bench.peers import cases
from pallas_kernels.two_four.cases import Case
from pallas_kernels.two_four.dispatch import H200, building_for, configured

OPS = ('matmul', 'up_compress', 'gated_backward', 'weight_gradient', 'feed_forward')
OPS += ('compress',)
# A dense product whose weights stream past its rows, wherever they would be resident.
STREAMED = {
  'resident': False,
  'warpgroups': 2,
  'tile_n': 256,
  'stages': 3,
  'chunk': 128,
  'buffers': 1,
}
# Fields that each candidate changes in the default config.
CANDIDATES = {
  'matmul': [
    {'cluster': 1},
    {'slots': 1},
    {'metadata_first': True},
    {'tile_n': 128, 'stages': 3},
    {'tile_n': 128, 'stages': 3, 'cluster': 1},
    {'tile_n': 128, 'warpgroup_rows': 128, 'stages': 2},
    {'snake': 4},
    {'snake': 16},
  ],
  # Those of the other kind of kernel than the default's do not fit, but for the last two.
  'up_compress': [
    {'buffers': 1},
    {'chunk': 64, 'stages': 4},
    {'warpgroups': 2},
    {'warpgroups': 4, 'stages': 1},
    {'warpgroups': 2, 'tile_n': 256, 'chunk': 64, 'stages': 2, 'buffers': 1},
    {'cluster': 2},
    {'in_flight': 0},
    {'tile_n': 128, 'stages': 6},
    {'snake': 16},
    STREAMED,
    STREAMED | {'tile_n': 128, 'stages': 6},
  ],
  'weight_gradient': [
    {'in_flight': 0},
    {'in_flight': 2, 'stages': 3},
    {'stages': 3},
    {'splits': 2},
    {'splits': 3},
    {'splits': 4},
    {'splits': 6},
    {'splits': 8},
  ],
  'feed_forward': [
    {'in_turns': False},
    {'cluster': 2},
    {'cluster': 2, 'in_turns': False},
    {'stages': 1},
    {'stages': 2},
    {'warpgroups': 1},
  ],
  'compress': [
    {'warpgroups': 2},
    {'warpgroups': 4},
    {'warpgroups': 1, 'stages': 4},
  ],
}
CANDIDATES['gated_backward'] = CANDIDATES['up_compress']


@functools.cache
def groups(op: str, tokens: int) -> dict[str, list[str]]:
  """Key -> names of the published cases that take its config: one must suit all."""
  found = {}
  for name, case in cases(tokens).items():
    if case.op != op:
      continue
    with building_for(H200), configured({}) as asked:
      jax.eval_shape(case.function('mosaic'), *case.abstract_inputs())
    if len(asked) == 1:  # else it runs several kernels, which have cases of their own
      found.setdefault(next(iter(asked)), []).append(name)
  return found


def group_of(key: str, tokens: int) -> list[Case]:
  names = groups(key.split()[0], tokens)[key]
  return [cases(tokens)[name] for name in names]


def candidates(key: str, tokens: int) -> list[dict[str, Any]]:
  """The configs to try, as fields; the default first, none twice."""
  case = group_of(key, tokens)[0]
  found = []
  for fields in [{}, *CANDIDATES[case.op]]:
    # A config that does not fit the shape fails only after it was asked for.
    with building_for(H200), configured(fields) as asked, contextlib.suppress(Exception):
      jax.eval_shape(case.function('mosaic'), *case.abstract_inputs())
    if key in asked and (config := dataclasses.asdict(asked[key])) not in found:
      found.append(config)
  return found


def key_of(name: str, op: str, tokens: int) -> str:
  """The key of the config that a case takes."""
  return next(key for key, names in groups(op, tokens).items() if name in names)


def best(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
  """The fastest config, or None where the default is, within the spread of the times."""
  default = rows[0]
  timed = [row for row in rows if 'us' in row]
  if not timed:
    return None
  fastest = min(timed, key=lambda row: row['us']['median'])
  if 'us' in default and fastest['us']['median'] >= default['us']['min']:
    return None
  return fastest['config']


def sweep_line(rows: list[dict[str, Any]]) -> str:
  """The default's time, and the best config's if another is."""
  chosen = best(rows)
  text = lambda row: f'{row["us"]["median"]:.1f} us' if 'us' in row else 'failed'
  faster = [text(row) for row in rows if row.get('config') == chosen]
  return f'default {text(rows[0])}' + (f', {chosen}: {faster[0]}' if chosen else '')
