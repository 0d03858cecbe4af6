"""The steps that time: each item in the worker, its row in the record as it comes."""

import time
from typing import Any

from pallas_kernels.bench import report, selection
from pallas_kernels.bench.peers import OURS, cases, straight
from pallas_kernels.bench.run import Run
from pallas_kernels.bench.workers import HUNG, NO_TIME, Worker, call_skipping

TASKS, TORCH = 'pallas_kernels.bench.tasks', 'pallas_kernels.bench.torch_peers'
COMPILE_SECONDS = 60  # for the check of a peer, compilation included
PROBE_SECONDS = 30


def prepare(run: Run, known_timer: str | None = None) -> None:
  """The timer, once known not probed again, and the peaks; each once in a run."""
  timer = known_timer
  if timer is None:
    probe = run.worker.call(f'{TASKS}:probe_timer', PROBE_SECONDS, run.end)
    timer = probe.get('result', 'loop')
    if 'failed' in probe:
      run.record['timer_failed'] = probe['failed']
  run.record['timer'] = timer
  given = {'repetitions': run.options.repetitions, 'timer': timer}
  peaks = run.worker.call(f'{TASKS}:peaks', COMPILE_SECONDS, run.end, **given)
  run.record['peaks'] = peaks.get('result', peaks)


def headline(run: Run, end: float) -> None:
  """The sparse product, tuned before it is timed, beside XLA's, JAX's and PyTorch's."""
  items = selection.headline(run.options.tokens)
  _measure('headline', run, items, end, tiles=True)


def layers(run: Run, end: float) -> None:
  items = selection.layer_items(run.options.tokens, run.options.only)
  _measure('layers', run, items, end)


def kernels(run: Run, end: float) -> None:
  items = selection.kernel_items(run.options.tokens, run.options.only)
  _measure('kernels', run, items, end)


def _measure(
  step: str, run: Run, items: list[selection.Item], end: float, tiles: bool = False
) -> None:
  """Measures the items until `end`; says which have no row."""
  start, failed, done = time.monotonic(), [], 0
  hung: dict[str, dict[str, str]] = {}  # op -> {peer: why}: what no later item tries
  with Worker(run.log) as torch:
    has_torch = any(_straight(run, item) for item in items) and _find_torch(run, torch, end)
    for number, (op, name) in enumerate(items):
      if time.monotonic() >= end:
        break
      item = _item(run, op, name, number, end, hung, tiles)
      if item.get('failed', '').startswith(NO_TIME):
        break
      if has_torch and _straight(run, (op, name)) and 'peers' in item:
        item['peers'] |= _torch(run, torch, name, end)
      _add_rates(run, item)
      done += 1
      run.record['items'].append({'step': step, **item})
      failed += [name] if report.failures(item, OURS) else []
      print(f'  {report.line(item)}', flush=True)
      run.save()
  missing = [name for _, name in items[done:]]
  verdict = f'failed: {len(failed)} of {done}' if failed else 'passed'
  if missing:
    verdict += f'; no time was left for {len(missing)} of {len(items)}'
  run.step(step, verdict, start, failed=failed, not_run=missing)


def _item(
  run: Run, op: str, name: str, number: int, end: float, hung: dict, tiles: bool
) -> dict[str, Any]:
  """The peers of an item with their times, or why there are none."""
  reply, lost = call_skipping(
    run.worker,
    f'{TASKS}:{"time_layer" if op == "layer" else "time_case"}',
    COMPILE_SECONDS,
    end,
    hung.get(op),
    name=name,
    tokens=run.options.tokens,
    repetitions=run.options.repetitions,
    timer=run.record['timer'],
    seed=run.record['seed'] + number,
    **({'tiles': True} if tiles else {}),
  )
  hung.setdefault(op, {}).update({k: why for k, why in lost.items() if HUNG in why})
  item = {'name': name, 'op': op}
  if 'result' not in reply:
    return item | {'failed': f'{reply["failed"]} (at {reply["during"]})'}
  item |= reply['result']
  item['peers'] |= {peer: {'failed': why} for peer, why in lost.items()}
  return item


def _straight(run: Run, item: selection.Item) -> bool:
  case = cases(run.options.tokens).get(item[1])
  return case is not None and straight(case)


def _find_torch(run: Run, torch: Worker, end: float) -> bool:
  found = torch.call(f'{TORCH}:device', COMPILE_SECONDS, end)
  run.record['versions']['torch'] = found.get('result', {}).get('torch')
  if 'failed' in found:
    run.record['torch_failed'] = found['failed']
  return 'result' in found


def _torch(run: Run, torch: Worker, name: str, end: float) -> dict[str, Any]:
  given = {'repetitions': run.options.repetitions, 'seed': run.record['seed']}
  given |= cases(run.options.tokens)[name].shape
  call = f'{TORCH}:time_matmul'
  reply, lost = call_skipping(torch, call, COMPILE_SECONDS, end, **given)
  missing = {peer: {'failed': why} for peer, why in lost.items()}
  return missing | reply.get('result', {'torch': {'failed': reply.get('failed', '')}})


def _add_rates(run: Run, item: dict[str, Any]) -> None:
  made, total = selection.floors(item['op'], item['name'], run.options.tokens)
  peaks = report.machine(run.record)
  for peer, entry in item.get('peers', {}).items():
    entry |= report.rates(entry, selection.floor_of(peer, made), total, peaks)
