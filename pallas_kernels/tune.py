"""The step that finds the fastest tiles of each kernel for each shape, on a Hopper GPU.

  python -m pallas_kernels.gpu_check --call=3 --out=DIR

Writes DIR/<device>.json, to be copied to pallas_kernels/tuned/: from then on
implementation=None takes the kernels on this kind of device. So it is written only if every
operation has passed all its checks there; a config is taken only if its own results are
right, and if it is faster than the default by more than the spread of the times.
gpu_check.json has every time and every failure.
"""

import json
import pathlib
import time
import types
from typing import Any

import jax

from pallas_kernels.bench import checks, contact, report, selection, timing
from pallas_kernels.bench.candidates import best, candidates, group_of, sweep_line
from pallas_kernels.bench.programs import compile_all, differing_runs
from pallas_kernels.bench.run import Run
from pallas_kernels.bench.tasks import REPEATED
from pallas_kernels.bench.workers import (
  NO_TIME,
  REPEAT_SECONDS,
  RUN_SECONDS,
  call_skipping,
  note,
  reason,
)
from pallas_kernels.two_four import dispatch
from pallas_kernels.two_four.cases import Case
from pallas_kernels.two_four.dispatch import configured

TUNE_KEY = 'pallas_kernels.tune:tune_key'
COMPILE_SECONDS = 90  # of all candidates together


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
  timed = [checks.case_inputs(case, seed, exact=False) for case in group]
  configs = [x for x in candidates(key, tokens) if json.dumps(x) not in skip]
  note('compiling')
  traced = [_all_cases(group, config) for config in configs]
  rows, calls = [], {}
  for config, function, program in zip(
    configs, traced, compile_all([(function, (inputs,)) for function in traced])
  ):
    name = json.dumps(config)
    rows.append({'config': config})
    if isinstance(program, Exception):
      rows[-1]['failed'] = reason(program)
      continue
    note(name, RUN_SECONDS)
    out = jax.block_until_ready(program(inputs))
    note(name)
    wrong = _wrong(group, out, expected)
    note(name, REPEAT_SECONDS)
    if not wrong and differing_runs(program, (inputs,), REPEATED):
      wrong = 'it changes from run to run'
    if wrong:
      rows[-1]['failed'] = f'wrong result: {wrong}'
    else:
      calls[name] = timing.Timed(program, [(timed,)], function)
  note('timing')
  times = timing.in_turns(calls, repetitions, timer)
  return [row | times.get(json.dumps(row['config']), {}) for row in rows]


def _all_cases(group: list[Case], config: dict[str, Any]):
  """The function of the inputs of all cases, each by the kernel with this config."""

  def run(every):
    with configured(config):
      return [case.function('mosaic')(*x) for case, x in zip(group, every)]

  return run


def _wrong(group: list[Case], out: list, expected: list) -> str:
  """The first case of which a result is wrong, or ''."""
  for case, found, wanted in zip(group, out, expected):
    if not checks.compare(found, wanted, case.op in checks.PRUNING)['passed']:
      return case.name
  return ''


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
  if not record['sweeps']:
    return ['nothing was swept']
  found = contact.wrong(record) + contact.unchecked(record)
  found += [
    f'{key}, default config: {rows[0].get("failed", "not timed")}'
    for key, rows in record['sweeps'].items()
    if 'us' not in rows[0]
  ]
  return found


def finish(record: dict[str, Any], out: pathlib.Path) -> str:
  """Writes the tuned file if nothing failed, else takes it away. Returns what it did."""
  path = dispatch.tuned_file(types.SimpleNamespace(device_kind=record['device']))
  if failed := failures(record):
    (out / path.name).unlink(missing_ok=True)
    return f'failed: no tuned file: {"; ".join(failed[:5])}'
  old = json.loads(path.read_text()) if path.exists() else {}
  report.write_json(out / path.name, tuned(record, old))
  return f'passed: {len(record["sweeps"])} keys in {path.name}'


def step(run: Run, end: float) -> None:
  """Sweeps one key after the other; the tuned file is written anew after each."""
  start, verdict = time.monotonic(), 'passed: nothing was swept'
  keys = selection.keys(run.options.tokens, run.options.only)
  for key in keys:
    if time.monotonic() >= end:
      break
    print(f'  {key}: {sweep(run, key, end)}', flush=True)
    if run.record['sweeps']:
      verdict = finish(run.record, run.out)
    run.save()
  missing = [key for key in keys if key not in run.record['sweeps']]
  if missing:
    verdict += f'; no time was left for {len(missing)} of {len(keys)}'
  run.step('tune', verdict, start, not_run=missing)


def sweep(run: Run, key: str, end: float) -> str:
  """Adds the sweep of a key to the record; returns what it says."""
  record = run.record
  reply, lost = call_skipping(
    run.worker,
    TUNE_KEY,
    COMPILE_SECONDS,
    end,
    key=key,
    tokens=run.options.tokens,
    repetitions=run.options.repetitions,
    timer=record['timer'],
    seed=record['seed'],
  )
  if 'failed' in reply:
    if reply['failed'] != NO_TIME:
      record['sweeps'][key] = [{'failed': reply['failed']}]
    return f'failed: {reply["failed"]} (at {reply["during"]})'
  rows = reply['result']
  default = json.dumps(candidates(key, run.options.tokens)[0])
  # Those that ended a process; other notes than of a config are no rows.
  ended = {x: why for x, why in lost.items() if x.startswith('{')}
  rows = [{'config': json.loads(x), 'failed': why} for x, why in ended.items()] + rows
  rows.sort(key=lambda row: json.dumps(row['config']) != default)
  record['sweeps'][key] = rows
  return sweep_line(rows)
