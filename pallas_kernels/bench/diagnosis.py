"""What is wrong where a one-hot product is: variants of it, of which one may be right.

All that is known of Hopper's sparse instruction comes from its documentation and from
CUTLASS: which lanes supply metadata, and in which order its words are. Each variant undoes
one way of having read that wrong, or leaves out a part of the kernel.
"""

import time
from typing import Any

from pallas_kernels.bench.contact import (
  COMPILE_SECONDS,
  RUN_CHECK,
  one_hot_checks,
  op_of,
  wrong,
)
from pallas_kernels.bench.one_hot import SHAPE, check_one_hot
from pallas_kernels.bench.run import Run
from pallas_kernels.bench.workers import Worker, run_all

RUN_VARIANT = 'pallas_kernels.bench.diagnosis:run_variant'
MOST_CASES = 3  # of those that failed
VARIANTS: dict[str, dict[str, Any]] = {
  'metadata selector 1': {'fields': {'selector': 1}},
  'halves of the metadata swapped': {'change': 'halves'},
  'rows of the metadata swapped': {'change': 'rows'},
  'stages=1': {'fields': {'stages': 1}},
  'K = 128': {'shape': [SHAPE[0], 128, SHAPE[2]]},
}
# Mosaic GPU writes PTX, SASS and what ptxas said into a folder while it compiles, so not
# where a program comes from the cache.
DUMP = {'JAX_ENABLE_COMPILATION_CACHE': 'false'}


def run_variant(name: str, variant: str) -> dict[str, Any]:
  """The check `name` of contact.py, changed."""
  given, changes = one_hot_checks()[name], dict(VARIANTS[variant])
  fields = {**given['fields'], **changes.pop('fields', {})}
  return check_one_hot(**{**given, **changes, 'fields': fields})


def step(run: Run, end: float) -> None:
  """Tries every variant of the one-hot checks that failed, and dumps what failed."""
  start, failed = time.monotonic(), wrong(run.record)
  found = run.record['diagnosis'] = {}
  one_hot = [name for name in failed if name in one_hot_checks()][:MOST_CASES]
  for name in one_hot:
    found[name] = {}
  tasks = [{'name': name, 'variant': x} for name in one_hot for x in VARIANTS]
  of = lambda task: task['variant']
  for task, reply in run_all(RUN_VARIANT, tasks, COMPILE_SECONDS, end, run.log, op_of=of):
    verdict = reply.get('result', {'passed': False, **reply})
    found[task['name']][task['variant']] = verdict
    run.save()
  dumped = dump(run, failed, end)
  verdict = says(found) if one_hot else 'no one-hot product is wrong'
  run.step('diagnosis', verdict, start, dumped=dumped)


def says(found: dict[str, dict[str, dict[str, Any]]]) -> str:
  """Which variants make all of the failed checks right."""
  right = [x for x in VARIANTS if all(v.get(x, {}).get('passed') for v in found.values())]
  some = [x for x in VARIANTS if any(v.get(x, {}).get('passed') for v in found.values())]
  if right:
    return f'right with: {"; ".join(right)}'
  if some:
    return f'right in part with: {"; ".join(some)}'
  return f'none of {len(VARIANTS)} variants is right'


def dump(run: Run, failed: list[str], end: float) -> list[str]:
  """Compiles one failed check of each operation again, its PTX and SASS kept."""
  chosen = {op_of(name): name for name in reversed(failed)}  # the first of each
  dumped = []
  for number, name in enumerate(sorted(chosen.values(), key=failed.index)[:MOST_CASES]):
    if time.monotonic() >= end:
      break
    folder = run.rest / f'dump_{number}_{op_of(name)}'
    folder.mkdir()
    more = DUMP | {'MOSAIC_GPU_DUMP_TO': str(folder)}
    with Worker(run.log, more) as worker:
      seed = run.record['seed']
      worker.call(RUN_CHECK, COMPILE_SECONDS, end, name=name, seed=seed)
    dumped.append(f'{folder.name}: {name}, {len(list(folder.iterdir()))} files')
  return dumped
