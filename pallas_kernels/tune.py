"""Finds the fastest tiles of each kernel for each shape, on a Hopper GPU.

  python -m pallas_kernels.tune [--ops=matmul,...] [--sizes=1b,...] [--out=DIR]
  python -m pallas_kernels.tune --dry_run                 anywhere: the list

Writes DIR/<device>.json, by default where dispatch.py looks for it: from then on
implementation=None takes the kernels on this kind of device. So it is written only if every
operation has passed all its checks there; a config is taken only if its own results are
right, and if it is faster than the default by more than the spread of the times.
DIR/tune.json, or --record, has every time and every failure.
"""

import argparse
import contextlib
import dataclasses
import functools
import json
import pathlib
import sys
import time
import types
from collections.abc import Callable
from concurrent import futures
from typing import Any

import jax

from pallas_kernels.bench import checks, report, timing
from pallas_kernels.bench.peers import cases
from pallas_kernels.bench.selection import TASKS, add_selection, sizes_of_case
from pallas_kernels.bench.workers import (
  NO_TIME,
  Worker,
  call_skipping,
  note,
  reason,
  run_all,
)
from pallas_kernels.two_four import dispatch
from pallas_kernels.two_four.cases import Case
from pallas_kernels.two_four.dispatch import H200, building_for, configured

OPS = ('matmul', 'up_compress', 'gated_backward', 'weight_gradient', 'feed_forward')
OPS += ('compress',)
STEP_SECONDS = 90
COMPILERS = 8  # threads; our kernels only, nothing is autotuned meanwhile
# Fields that each candidate changes in the default config.
CANDIDATES = {
  'matmul': [
    {'cluster': 2},
    {'slots': 1},
    {'tile_n': 128, 'stages': 3},
    {'tile_n': 128, 'stages': 3, 'cluster': 2},
    {'tile_n': 192, 'stages': 3, 'slots': 1},
    {'tile_n': 128, 'warpgroup_rows': 128, 'stages': 2},
    {'tile_n': 192, 'stages': 2, 'warpgroups': 3},
    {'snake': 4},
    {'snake': 16},
  ],
  'up_compress': [
    {'cluster': 2},
    {'in_flight': 0},
    {'stages': 2},
    {'tile_n': 128, 'stages': 4},
    {'tile_n': 128, 'stages': 4, 'cluster': 2},
    {'tile_n': 128, 'stages': 6},
    {'tile_n': 128, 'stages': 4, 'warpgroups': 3},
    {'snake': 16},
  ],
  'weight_gradient': [
    {'in_flight': 0},
    {'tile_n': 128},
    {'tile_n': 64},
    {'stages': 3},
    {'splits': 1},
    {'splits': 2},
    {'splits': 4},
    {'splits': 8},
    {'snake': 16},
  ],
  'feed_forward': [
    {'stages': 1},
    {'stages': 2},
    {'stages': 3},
    {'warpgroups': 1},
    {'warpgroups': 3},
    {'warpgroups': 3, 'stages': 2},
  ],
  'compress': [
    {'warpgroups': 2},
    {'warpgroups': 2, 'stages': 2},
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


def keys(ops: list[str], sizes: list[str], tokens: int) -> list[str]:
  """What to tune: matmul first, the larger models of one GPU first."""
  order = ('1b', '350m', '130m', '60m', '7b')
  chosen = []
  for key in [key for op in ops for key in groups(op, tokens)]:
    of_case = sizes_of_case(group_of(key, tokens)[0])
    if of_case & set(sizes):
      place = min(order.index(size) for size in of_case)
      chosen.append((place, OPS.index(key.split()[0]), key))
  return [key for *_, key in sorted(chosen)]


def tune_key(
  key: str, tokens: int, repetitions: int, timer: str, seed: int, skip: list[str]
) -> list[dict[str, Any]]:
  """The candidates with their times, or why they have none; runs in a worker."""
  group = group_of(key, tokens)
  inputs = [checks.case_inputs(case, seed) for case in group]
  expected = []
  for case, given in zip(group, inputs):
    note(f'reference {case.name}')
    expected.append(jax.block_until_ready(checks.strict(case.function('xla'))(*given)))
  rows, calls = [], {}
  timed = [checks.case_inputs(case, seed, exact=False) for case in group]
  configs = [x for x in candidates(key, tokens) if json.dumps(x) not in skip]
  for config, functions in zip(configs, _compiled(group, inputs, configs)):
    name = json.dumps(config)
    rows.append({'config': config})
    if isinstance(functions, Exception):
      rows[-1]['failed'] = reason(functions)
      continue
    note(name)
    if wrong := _wrong(group, functions, inputs, expected):
      rows[-1]['failed'] = f'wrong result: {wrong}'
    else:
      calls[name] = lambda _, f=functions: [g(*x) for g, x in zip(f, timed)]
  note('timing')
  times = timing.in_turns(calls, repetitions, timer)
  return [row | times.get(json.dumps(row['config']), {}) for row in rows]


def _compiled(group: list[Case], inputs: list[tuple], configs: list[dict]) -> list:
  """For each config the programs of all cases, or the error that one of them met."""
  lowered = []
  for config in configs:
    with configured(config):
      jitted = [jax.jit(case.function('mosaic')) for case in group]
      lowered.append(_try(lambda f=jitted: [g.lower(*x) for g, x in zip(f, inputs)]))
  build = lambda programs: _try(lambda: [program.compile() for program in programs])
  with futures.ThreadPoolExecutor(COMPILERS) as pool:
    return list(pool.map(lambda x: x if isinstance(x, Exception) else build(x), lowered))


def _try(function: Callable[[], list]) -> list | Exception:
  try:
    return function()
  except Exception as error:
    return error


def _wrong(group, functions, inputs, expected) -> str:
  """The first case of which a result is wrong or changes from run to run, or ''."""
  for case, function, given, wanted in zip(group, functions, inputs, expected):
    verdict = checks.compare(function(*given), wanted, case.op in checks.PRUNING)
    if not verdict['passed'] or checks.differing_runs(function, given, 3):
      return case.name
  return ''


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


def tuned(record: dict[str, Any], old: dict[str, Any]) -> dict[str, Any]:
  """What dispatch.py reads: the best configs, and an old file's for the same kernels."""
  same = old.get('source') == record['source'] and old.get('device') == record['device']
  configs, times = ({**old[name]} if same else {} for name in ('configs', 'times'))
  for key, rows in record['sweeps'].items():
    configs.pop(key, None)
    if config := best(rows):
      configs[key] = config
    times[key] = [row for row in rows if 'us' in row]
  about = {k: record[k] for k in ('device', 'versions', 'commit', 'source')}
  return about | {'configs': configs, 'times': times}


def failures(record: dict[str, Any]) -> list[str]:
  """What keeps the file from being written: checks that failed or did not run, defaults."""
  verdicts = record['checks']
  if not record['sweeps']:
    return ['nothing was swept']
  found = [name for name, x in verdicts.items() if not x.get('passed')]
  found += [name for name in checks.contact(0) if name not in verdicts]
  found += [
    f'{key}, default config: {rows[0].get("failed", "not timed")}'
    for key, rows in record['sweeps'].items()
    if 'us' not in rows[0]
  ]
  return found


def finish(record: dict[str, Any], out: pathlib.Path) -> bool:
  """Writes the tuned file if nothing failed. Returns whether it did."""
  if failed := failures(record):
    print(f'{len(failed)} failed, no tuned file: {"; ".join(failed[:5])}', flush=True)
    return False
  path = out / dispatch.tuned_file(types.SimpleNamespace(device_kind=record['device'])).name
  old = json.loads(path.read_text()) if path.exists() else {}
  report.write_json(path, tuned(record, old))
  print(f'wrote {path.name}: implementation=None takes the kernels on this device')
  return True


def check_ops(record: dict[str, Any], log: pathlib.Path | None, end: float) -> None:
  """All of checks.contact on this device, unless the record has them."""
  names = [name for name in checks.contact(0) if name not in record['checks']]
  tasks = [{'name': name, 'seed': record['seed']} for name in names]
  function = 'pallas_kernels.bench.checks:run_contact'
  for task, reply in run_all(function, tasks, STEP_SECONDS, end, log):
    verdict = reply.get('result', {'passed': False, **reply})
    record['checks'][task['name']] = verdict
    if not verdict['passed']:
      print(f'{task["name"]}: failed: {json.dumps(verdict)[:300]}', flush=True)


def known_checks(path: str | None, record: dict[str, Any]) -> dict[str, Any]:
  """The verdicts of a file, if they are of this device and these kernels."""
  if path is None:
    return {}
  known = json.loads(pathlib.Path(path).read_text())
  same = all(known.get(name) == record[name] for name in ('device', 'source'))
  return known['checks'] if same else {}


def sweep(args: argparse.Namespace) -> int:
  """Checks, times and writes. Returns the exit status."""
  end, out = time.monotonic() + args.seconds, pathlib.Path(args.out)
  path = pathlib.Path(args.record) if args.record else out / 'tune.json'
  with Worker(args.log and pathlib.Path(args.log)) as worker:
    reply = worker.call(f'{TASKS}:device', 120)
    device = reply.get('result', {'unavailable': reply.get('failed')})
    if device['unavailable']:
      print(f'not available: {device["unavailable"]}. --dry_run works anywhere.')
      return 2
    record = {
      'device': device['device'],
      'versions': device['versions'],
      'commit': report.commit(),
      'source': report.source(),
      'seed': int(time.time()) % 2**31,
      'repetitions': args.repetitions,
      'sweeps': {},
    }
    record['checks'] = known_checks(args.checks, record)
    check_ops(record, worker.log, end)
    record['timer'] = worker.call(f'{TASKS}:probe_timer', 90).get('result', 'wall')
    for key in keys(args.ops, args.sizes, args.tokens):
      if time.monotonic() < end:
        print(f'{key}: {tune_in(worker, key, args, record, end)}', flush=True)
        report.write_json(path, record)
  report.write_json(path, record)
  return 0 if finish(record, out) else 1


def tune_in(worker: Worker, key: str, args: Any, record: dict, end: float) -> str:
  """Adds the sweep of a key to the record; returns what it says."""
  reply, failed = call_skipping(
    worker,
    'pallas_kernels.tune:tune_key',
    STEP_SECONDS,
    end,
    key=key,
    tokens=args.tokens,
    repetitions=args.repetitions,
    timer=record['timer'],
    seed=record['seed'],
  )
  if 'failed' in reply:
    if reply['failed'] != NO_TIME:
      record['sweeps'][key] = [{'failed': reply['failed']}]
    return f'failed: {reply["failed"]} (at {reply["during"]})'
  rows = reply['result']
  default = json.dumps(candidates(key, args.tokens)[0])
  # Those that ended a process; other notes than of a config are no rows.
  ended = {x: why for x, why in failed.items() if x.startswith('{')}
  rows = [{'config': json.loads(x), 'failed': why} for x, why in ended.items()] + rows
  rows.sort(key=lambda row: json.dumps(row['config']) != default)
  record['sweeps'][key] = rows
  chosen = best(rows)
  text = lambda row: f'{row["us"]["median"]:.1f} us' if 'us' in row else 'failed'
  faster = [text(row) for row in rows if row['config'] == chosen]
  return f'default {text(rows[0])}' + (f', {chosen}: {faster[0]}' if chosen else '')


def dry_run(args: argparse.Namespace) -> int:
  print('Dry run: nothing is measured. What would be tried, the default first:')
  for key in keys(args.ops, args.sizes, args.tokens):
    print(f'{key}, for {len(group_of(key, args.tokens))} cases')
    for config in candidates(key, args.tokens):
      print(f'  {" ".join(f"{k}={v}" for k, v in config.items())}', flush=True)
  return 0


def main(arguments: list[str] | None = None) -> int:
  parser = argparse.ArgumentParser(
    'python -m pallas_kernels.tune', description=__doc__, allow_abbrev=False
  )
  add_selection(parser, OPS)
  add = parser.add_argument
  add('--out', default=str(dispatch.TUNED), help='where the file goes (tuned/)')
  add('--record', help='the file of all times (tune.json beside it)')
  add('--repetitions', type=int, default=5, help='turns of every config (5)')
  add('--checks', help='a gpu_check.json: its checks of these kernels need not be repeated')
  add('--log', help='a file for what the processes print')
  args = parser.parse_args(arguments)
  return dry_run(args) if args.dry_run else sweep(args)


if __name__ == '__main__':
  sys.exit(main())
