"""First contact with a device: all checks that must pass before anything is timed there.

The simplest first: one-hot products. CTAs in a cluster share their copies, so the sparse
product is checked with one and with two of them in it.
"""

import functools
import itertools
import json
import pathlib
import time
from collections.abc import Callable
from typing import Any

from pallas_kernels.bench import checks
from pallas_kernels.bench.one_hot import check_one_hot
from pallas_kernels.bench.run import Run
from pallas_kernels.bench.timing import TIMERS
from pallas_kernels.bench.workers import NO_TIME, run_all
from pallas_kernels.two_four.cases import Case, small
from pallas_kernels.two_four.dispatch import configured
from pallas_kernels.two_four.fused import BACKWARDS
from pallas_kernels.two_four.op import KERNEL_RULES

RUN_CHECK = 'pallas_kernels.bench.contact:run_check'
COMPILE_SECONDS = 60
CLUSTERS = (1, 2)
GRADIENTS = ((128, 128, 256, 128), (128, 320, 256, 320))  # one kernel, and two
CLUSTERED = Case('matmul', {'M': 512, 'K': 384, 'N': 192})
# Weights that do not fit into shared memory, and tokens for one warpgroup of two.
STREAMED = (
  Case('up_compress', {'T': 40, 'K': 584, 'F': 256}),
  Case('gated_backward', {'T': 40, 'N': 584, 'F': 256}),
)


def one_hot_checks() -> dict[str, dict[str, Any]]:
  """Name -> the arguments of check_one_hot."""
  return {
    f'one-hot matmul, axis={axis}, transpose_b={turned}, cluster={cluster}': {
      'axis': axis,
      'transpose_b': turned,
      'fields': {'cluster': cluster},
    }
    for cluster, axis, turned in itertools.product(CLUSTERS, (1, 0), (False, True))
  }


def contact(seed: int) -> dict[str, Callable[[], dict[str, Any]]]:
  """All that must pass on a device, by name."""
  found = {
    name: functools.partial(check_one_hot, **arguments)
    for name, arguments in one_hot_checks().items()
  }
  for case in (*small(), *STREAMED):
    found[case.name] = functools.partial(checks.check_case, case, seed)
  found[f'{CLUSTERED.name}-cluster=2'] = functools.partial(_clustered, seed)
  for (T, F), rule in itertools.product(((128, 256), (72, 132)), KERNEL_RULES):
    name = f'compress_both-T{T}-F{F}-{rule}'
    found[name] = functools.partial(checks.check_both, T, F, rule, seed)
  for shape, backward in itertools.product(GRADIENTS, BACKWARDS):
    name = f'gradients-{"x".join(map(str, shape))}-{backward}'
    found[name] = functools.partial(checks.check_gradients, shape, backward, seed)
  return found


def _clustered(seed: int) -> dict[str, Any]:
  with configured({'cluster': 2}):
    return checks.check_case(CLUSTERED, seed)


def op_of(name: str) -> str:
  """The operation that a check is of."""
  return name.removeprefix('one-hot ').replace(',', '-').split('-')[0]


def run_check(name: str, seed: int) -> dict[str, Any]:
  return contact(seed)[name]()


def known(path: pathlib.Path, record: dict[str, Any]) -> dict[str, Any]:
  """The record of an earlier call, if it is of this device and these kernels, else nothing.

  Of the same driver, jax and plugin, too: these compile them. Checks for which no time was
  left, as files of before have them, are not among them.
  """
  found = json.loads(path.read_text())
  named = lambda x: {k: x.get(k) for k in ('device', 'source', 'driver')}
  of = lambda x: named(x) | x.get('versions', {})
  made = of(found)
  for field, here in of(record).items():
    if made.get(field) != here:
      print(f'{path.name}: of {field} {made.get(field)}, not {here}: not used')
      return {}
  checks = {k: x for k, x in found['checks'].items() if x.get('failed') != NO_TIME}
  return found | {'checks': checks}


def is_record(found: Any) -> bool:
  """Whether it is what a call writes, as far as `known` reads it."""
  if not isinstance(found, dict) or not {'device', 'source', 'checks'} <= found.keys():
    return False
  if found.get('timer') not in (None, *TIMERS) or not isinstance(found['checks'], dict):
    return False
  verdict = lambda x: isinstance(x, dict) and isinstance(x.get('passed'), bool)
  return all(map(verdict, found['checks'].values()))


def unchecked(record: dict[str, Any]) -> list[str]:
  return [name for name in contact(0) if name not in record['checks']]


def wrong(record: dict[str, Any]) -> list[str]:
  return [name for name, verdict in record['checks'].items() if not verdict['passed']]


def step(run: Run, end: float) -> None:
  """The checks that the record lacks, in several processes: a hang stops one of them."""
  start, verdicts = time.monotonic(), run.record['checks']
  seed = int(time.time()) % 2**31
  tasks = [{'name': name, 'seed': seed} for name in unchecked(run.record)]
  op = lambda task: op_of(task['name'])
  for task, reply in run_all(RUN_CHECK, tasks, COMPILE_SECONDS, end, run.log, op_of=op):
    if reply.get('failed') == NO_TIME:
      continue  # it was not made: it is not wrong
    verdict = reply.get('result', {'passed': False, **reply})
    verdicts[task['name']] = verdict
    text = 'passed' if verdict['passed'] else f'failed: {json.dumps(verdict)[:400]}'
    print(f'  {task["name"]}: {text}', flush=True)
    run.save()
  failed, missing = wrong(run.record), unchecked(run.record)
  parts = [f'{len(failed)} of {len(verdicts)}'] if failed else []
  if missing:
    parts.append(f'no time was left for {len(missing)} of {len(contact(0))}')
  verdict = f'failed: {"; ".join(parts)}' if parts else 'passed'
  run.step('contact', verdict, start, seed=seed, failed=failed, not_run=missing)
