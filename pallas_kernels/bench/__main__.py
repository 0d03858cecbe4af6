"""Times the 2:4 kernels against XLA, JAX's own dense kernel and PyTorch.

  python -m pallas_kernels.bench --out=DIR                 everything, on a Hopper GPU
  python -m pallas_kernels.bench --ops=matmul --sizes=1b --out=DIR
  python -m pallas_kernels.bench --dry_run                 anywhere: the list, with floors

Every result is compared with XLA's on fresh random inputs before it is timed; what fails is
reported and not timed. DIR/bench.json and DIR/bench.md are written after every case, the
most important cases first.
"""

import argparse
import pathlib
import sys
import time
from typing import Any

import jax

from pallas_kernels.bench import checks, layers, report
from pallas_kernels.bench.peers import OURS, cases, peers, straight
from pallas_kernels.bench.selection import (
  OPS,
  TASKS,
  TORCH,
  add_selection,
  floors,
  items,
)
from pallas_kernels.bench.workers import HUNG, NO_TIME, Worker, call_skipping, reason
from pallas_kernels.roofline import Machine
from pallas_kernels.two_four import dispatch
from pallas_kernels.two_four.cases import small

STEP_SECONDS = 60  # for the check of a peer, compilation included


class Bench:
  """A run: its record, and the processes that measure."""

  def __init__(self, args: argparse.Namespace, device: dict[str, Any], worker: Worker):
    self.args, self.worker = args, worker
    self.torch = None
    self.hung = {}  # op -> {peer: why}; the next case is not tried with these
    self.record = {
      'device': device['device'],
      'driver': report.driver(),
      'versions': device['versions'],
      'commit': report.commit(),
      'source': report.source(),
      'repetitions': args.repetitions,
      'tokens': args.tokens,
      'seed': int(time.time()) % 2**31,
      'items': [],
    }

  def prepare(self, log: pathlib.Path | None) -> None:
    """The timer, the peaks, and whether PyTorch can be timed."""
    probe = self.worker.call(f'{TASKS}:probe_timer', 90)
    self.record['timer'] = probe.get('result', 'wall')
    if 'failed' in probe:
      print(f'no device timer, wall clock instead: {probe["failed"]}', flush=True)
    given = {'repetitions': self.args.repetitions, 'timer': self.record['timer']}
    peaks = self.worker.call(f'{TASKS}:peaks', 90, **given)
    self.record['peaks'] = peaks.get('result', peaks)
    self.torch = Worker(log)
    found = self.torch.call(f'{TORCH}:device', 90)
    if 'result' in found:
      self.record['versions']['torch'] = found['result']['torch']
    else:
      print(f'no PyTorch: {found["failed"]}', flush=True)
      self.torch.close()
      self.torch = None

  def run(self, op: str, name: str, end: float) -> dict[str, Any]:
    """Measures an item and adds it to the record, unless the time is over."""
    args, record = self.args, self.record
    reply, failed = call_skipping(
      self.worker,
      f'{TASKS}:{"time_layer" if op == "layer" else "time_case"}',
      STEP_SECONDS,
      end,
      self.hung.get(op),
      name=name,
      tokens=args.tokens,
      repetitions=args.repetitions,
      timer=record['timer'],
      seed=record['seed'] + len(record['items']),
    )
    hung = {peer: why for peer, why in failed.items() if HUNG in why}
    self.hung.setdefault(op, {}).update(hung)
    item = {'name': name, 'op': op}
    if 'result' in reply:
      item |= reply['result']
      item['peers'] |= {peer: {'failed': why} for peer, why in failed.items()}
      case = cases(args.tokens).get(name)
      if self.torch and case and straight(case):
        item['peers'] |= self._torch(case.shape, end)
      ops, total = floors(op, name, args.tokens)
      peaks = report.machine(record)
      for peer, entry in item['peers'].items():
        entry |= report.rates(entry, ops.get(peer, []), total, peaks)
    else:
      item['failed'] = f'{reply["failed"]} (at {reply["during"]})'
      if reply['failed'] == NO_TIME:
        return item
    record['items'].append(item)
    return item

  def _torch(self, shape: dict[str, int], end: float) -> dict[str, Any]:
    given = {'repetitions': self.args.repetitions, 'seed': self.record['seed']}
    call = f'{TORCH}:time_matmul'
    reply, failed = call_skipping(self.torch, call, STEP_SECONDS, end, **shape, **given)
    missing = {peer: {'failed': why} for peer, why in failed.items()}
    return missing | reply.get('result', {'torch': {'failed': reply.get('failed', '')}})


def measure(args: argparse.Namespace) -> int:
  """Everything asked for, on the GPU. Returns the exit status."""
  end = time.monotonic() + args.seconds
  log = args.log and pathlib.Path(args.log)
  pathlib.Path(args.out).mkdir(parents=True, exist_ok=True)
  with Worker(log) as worker:
    reply = worker.call(f'{TASKS}:device', 120)
    device = reply.get('result', {'unavailable': reply.get('failed')})
    if device['unavailable']:
      print(f'not available: {device["unavailable"]}. --dry_run works anywhere.')
      return 2
    bench = Bench(args, device, worker)
    bench.prepare(log)
    todo = items(args.ops, args.sizes, args.tokens)
    try:
      for op, name in todo:
        if time.monotonic() < end:
          print(report.line(bench.run(op, name, end)), flush=True)
        measured = [item['name'] for item in bench.record['items']]
        bench.record['not_run'] = [name for _, name in todo if name not in measured]
        save(bench.record, args.out)
    finally:
      if bench.torch:
        bench.torch.close()
  return 0


def save(record: dict[str, Any], out: str) -> None:
  report.write_json(pathlib.Path(out) / 'bench.json', record)
  report.write(pathlib.Path(out) / 'bench.md', report.render(record))


def dry_run(args: argparse.Namespace) -> int:
  """Builds all that would be timed, lowers our kernels, and prints floors."""
  machine = Machine()
  print(
    f'Dry run: nothing is measured. Floors in us at {machine.matmul_tflops:g} TFLOP/s and '
    f'{machine.bandwidth_tb:g} TB/s, which are given.'
  )
  failed = 0
  for op, name in items(args.ops, args.sizes, args.tokens):
    try:
      with dispatch.building_for(dispatch.H200):
        _build(op, name, args.tokens)
      ops, _ = floors(op, name, args.tokens)
      text = ', '.join(f'{peer} {machine.floor(x):.1f}' for peer, x in ops.items())
    except Exception as error:
      failed, text = failed + 1, f'failed: {reason(error)}'
    print(f'{name}: {text}', flush=True)
  if args.emulate_small:
    failed += emulate()
  return int(failed > 0)


def _build(op: str, name: str, tokens: int) -> None:
  if op == 'layer':
    layer, training = layers.all_layers(tokens)[name]
    inputs = jax.eval_shape(lambda: layers.inputs(layer, training, True, 0))
    functions = layers.functions(layer, training)
    functions = {peer: (functions[peer], inputs) for peer in layers.floors(layer, training)}
  else:
    case = cases(tokens)[name]
    inputs = case.abstract_inputs()
    functions = {
      peer.name: (peer.function, jax.eval_shape(peer.prepare, *inputs))
      for peer in peers(case)
    }
  for peer, (function, inputs) in functions.items():
    traced = jax.jit(function).trace(*inputs)
    if peer.startswith(OURS):
      traced.lower(lowering_platforms=('cuda',))


EMULATED = (
  'matmul-M128-K128-N256-out_dtype=float32',
  'gated_backward-T128-N128-F256-transpose_w=False',
)


def emulate() -> int:
  """The checks of a few small cases, the kernels interpreted. Returns how many fail."""
  failed, tiny = 0, {case.name: case for case in small()}
  for name in EMULATED:
    with dispatch.emulated():
      result = checks.check_case(tiny[name], seed=0, runs=0)
    failed += not result['passed']
    print(f'{name}, emulated: {result}', flush=True)
  return failed


def main(arguments: list[str] | None = None) -> int:
  parser = argparse.ArgumentParser(
    'python -m pallas_kernels.bench', description=__doc__, allow_abbrev=False
  )
  add_selection(parser, OPS)
  add = parser.add_argument
  add('--out', default='runs/bench', help='where bench.json and bench.md go (runs/bench)')
  add('--repetitions', type=int, default=7, help='turns of every peer (7)')
  add('--log', help='a file for what the processes print')
  add('--emulate_small', action='store_true', help='dry run: check some kernels, slowly')
  args = parser.parse_args(arguments)
  return dry_run(args) if args.dry_run else measure(args)


if __name__ == '__main__':
  sys.exit(main())
