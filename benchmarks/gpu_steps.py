"""Whole training steps on one GPU, with the 2:4 kernels and without, in turns.

  python -m benchmarks.gpu_steps --sizes=350m,60m --seconds=150 --out=DIR

For each size of configs/c4.py, on random tokens: the full-rank SwiGLU model, the low-rank
one with squared ReLU, and ELAS, whose 2:4 is dense XLA once and our kernels once
(model.feed_forward.implementation). All four are compiled first, several at a time: most of
the work. Then each runs a step in turn, timed by the clock from the call to the last of
its results. The kernels must be in the compiled program, and ELAS by the kernels must
have the gradients and the loss of ELAS in XLA.

A size has a process of its own, which is stopped when it hangs; a model that ends it is
left out and the others run again. DIR/steps_DEVICE.json and .md are written after every
stage. Needs what training needs (setup.cfg) and a Hopper GPU; elsewhere --dry_run tries
everything but the kernels, which it lowers for an H200, on models that mean nothing.
"""

import argparse
import math
import os
import pathlib
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.gpu_wheels import made, missing
from pallas_kernels.bench import report
from pallas_kernels.bench.workers import HUNG, Worker
from pallas_kernels.roofline import markdown

SIZES = ('350m', '60m', '130m', '1b')
XLA, KERNELS = 'ELAS, dense XLA', 'ELAS, kernels'
CONTROL = 'low rank, squared ReLU'
# Name -> METHOD of configs/c4.py, and model.feed_forward.implementation.
PEERS = {
  'full rank, SwiGLU': ('full', 'auto'),
  CONTROL: ('loro_relu2', 'auto'),
  XLA: ('elas', 'xla'),
  KERNELS: ('elas', 'mosaic'),
}
RANK = 'model.linear.rank'  # which the full-rank model does not have
TINY = {
  'model.vocab_size': 300,
  'model.width': 64,
  'model.feed_forward_width': 128,
  'model.layers': 1,
  'model.attention.heads': 2,
  RANK: 16,
  'data.sequence_length': 32,
}
MODULE = 'benchmarks.gpu_peers'
BUILD_SECONDS = 150  # for all four models of a size to be compiled
STEP_SECONDS = 30  # for one step, the first with the making of a state
LEAST_SECONDS = 60  # without which no size is begun; or the longest so far
# Between ELAS by the kernels and in XLA: of a first step's gradients, as a share of their
# norm, and of the last step's loss, nats a token. bf16 rounds at 0.4 %, and entries that
# are nearly equal are pruned one way or the other. Without any pruning it is 20 %.
GRADIENT_TOLERANCE = 0.05
LOSS_TOLERANCE = 0.02

Rows = dict[str, dict[str, Any]]


def measure(
  worker: Worker,
  size: str,
  args: argparse.Namespace,
  end: float,
  save: Callable,
  hung: Sequence[str] = (),
) -> None:
  """Builds and times the models of a size; `save` gets {name: row} as they come.

  Those that `hung` twice before are left out.
  """
  rows: Rows = {name: {'failed': 'left out, since it hung twice'} for name in hung}
  skip = list(hung)
  while len(skip) < len(PEERS):
    given = {'size': size, 'peers': PEERS, 'rows': args.rows}
    if args.dry_run:
      given |= {'fields': TINY, 'lower_kernels': True}
    reply = worker.call(f'{MODULE}:build', BUILD_SECONDS, end, skip=skip, **given)
    rows |= reply.get('result', {})
    save(rows)
    if 'result' in reply:
      reply = worker.call(
        f'{MODULE}:turns', STEP_SECONDS, end, steps=args.steps, compared=[XLA, KERNELS]
      )
    if 'result' in reply:
      for name, row in reply['result'].items():
        rows[name] |= row
      break
    worker.close()  # whatever its state is, the next attempt starts afresh
    guilty = reply['during']
    if guilty not in PEERS:
      guilty = None
    for name in [guilty] if guilty else PEERS:
      if 'failed' not in rows.setdefault(name, {}):
        rows[name]['failed'] = reply['failed']
    if guilty is None:
      break
    skip = [name for name in PEERS if 'failed' in rows.get(name, {})]
  save({name: rows[name] | verdict(name, rows[name]) for name in PEERS if name in rows})


def verdict(name: str, row: dict[str, Any]) -> dict[str, Any]:
  """{'wrong': in what} if a row is not what its name says, else {}."""
  if 'failed' in row or 'not_run' in row:
    return {}
  found, loss = [], row['loss']
  if not abs(loss) < float('inf'):
    found.append(f'the loss is {loss}')
  if bool(row['kernels']) != (name == KERNELS):
    found.append(f'{row["kernels"]} kernels are in the compiled program')
  if (off := row.get('gradient_difference', 0)) > GRADIENT_TOLERANCE or off != off:
    found.append(f"gradients differ from XLA's by {off:.3g} of their norm")
  if (off := row.get('loss_difference', 0)) > LOSS_TOLERANCE or off != off:
    found.append(f"the loss differs from XLA's by {off:.3g}")
  return {'wrong': '; '.join(found)} if found else {}


def render(record: dict[str, Any]) -> str:
  """The record as Markdown."""
  versions = ', '.join(f'{k} {v}' for k, v in record['versions'].items() if v)
  parts = ['# Training steps']
  if record['dry_run']:
    parts.append('**Dry run: tiny models, no kernels; the times mean nothing.**')
  parts.append(
    f'Device: {record["device"]}, driver {record["driver"]}. {versions}. Commit '
    f'{record["commit"]}, kernels {record["source"]}. {record["rows"]} rows of 256 random '
    f'tokens; {record["repetitions"]} steps after 2 more, the models in turns: median, '
    'least and most. Ratio: the control, low rank with squared ReLU, over the model.'
  )
  header = ['size', 'model', 'ms', 'least', 'most', 'ratio', 'tokens/s', 'temporary GB']
  header += ['kernels compiled in', 'loss', 'parameters']
  rows, lines = [], []
  for size, peers in record['sizes'].items():
    control = peers.get(CONTROL, {}).get('ms', {}).get('median')
    for name, row in peers.items():
      rows.append([size, name, *_cells(row, control)])
      for kind in ('wrong', 'failed', 'not_run'):
        if kind in row:
          label = {'wrong': 'WRONG', 'failed': 'Failed', 'not_run': 'Not run'}[kind]
          lines.append(f'- {label}: {size}, {name}: {row[kind]}')
    lines += _agreement(size, peers.get(KERNELS, {}))
  parts.append(markdown(header, rows))
  parts += ['\n'.join(lines)] if lines else []
  if record['not_run']:
    parts.append(f'Not run, no time was left: {", ".join(record["not_run"])}')
  return '\n\n'.join(parts) + '\n'


def _cells(row: dict[str, Any], control: float | None) -> list[str]:
  temporary = row.get('temporary_bytes')
  known = [
    '-' if temporary is None else f'{temporary / 1e9:.2f}',
    str(row.get('kernels', '-')),
    f'{row["loss"]:.4f}' if 'loss' in row else '-',
    f'{row["parameters"]:,}' if 'parameters' in row else '-',
  ]
  if 'ms' not in row or 'failed' in row:
    return ['failed' if 'failed' in row else '-', *['-'] * 4, *known]
  ms = row['ms']
  times = [f'{ms[kind]:.2f}' for kind in ('median', 'min', 'max')]
  times[0] += ' WRONG' if 'wrong' in row else ''
  times[0] += '' if row['in_turns'] else ' (alone)'
  ratio = f'{control / ms["median"]:.3f}' if control else '-'
  return [*times, ratio, f'{row["tokens_per_second"]:,.0f}', *known]


def _agreement(size: str, row: dict[str, Any]) -> list[str]:
  if 'gradient_difference' not in row:
    return []
  return [
    f'- {size}, kernels against XLA from the same state: gradients of the feed-forward '
    f'differ by {row["gradient_difference"]:.2g} of their norm (accepted: '
    f'{GRADIENT_TOLERANCE}), the last loss by {row["loss_difference"]:.2g} '
    f'({LOSS_TOLERANCE})'
  ]


def about(found: dict[str, Any]) -> dict[str, Any]:
  """What every record says of the device and the code."""
  own = {'driver': report.driver(), 'commit': report.commit(), 'source': report.source()}
  return {name: found[name] for name in ('device', 'versions')} | own


def run(args: argparse.Namespace, found: dict[str, Any], end: float) -> int:
  """All sizes for which there is time. Returns the exit status."""
  record = about(found) | {'rows': args.rows, 'repetitions': args.steps}
  record |= {'dry_run': args.dry_run, 'sizes': {}, 'seconds': {}, 'not_run': []}
  path = pathlib.Path(args.out) / f'steps_{found["device"].replace(" ", "_")}'

  def save():
    report.write_json(path.with_suffix('.json'), record)
    report.write(path.with_suffix('.md'), render(record))

  for size in args.sizes:
    start = time.monotonic()
    if start + seconds_of_a_size(record) > end:
      record['not_run'].append(size)
      save()
      continue

    def save_rows(rows, size=size):
      record['sizes'][size] = dict(rows)
      save()

    with Worker(log_of(args)) as worker:
      measure(worker, size, args, end, save_rows, hung_twice(record))
    record['seconds'][size] = round(time.monotonic() - start, 1)
    save()
    print(f'{size}: {record["seconds"][size]:.0f} s', flush=True)
  print(render(record))
  every = [row for rows in record['sizes'].values() for row in rows.values()]
  return int(not every or any('failed' in row or 'wrong' in row for row in every))


def seconds_of_a_size(record: dict[str, Any]) -> float:
  """What one takes: the longest of those so far in which nothing failed."""
  whole = [
    size
    for size, rows in record['sizes'].items()
    if not any('failed' in row for row in rows.values())
  ]
  return max([LEAST_SECONDS, *(record['seconds'][size] for size in whole)])


def hung_twice(record: dict[str, Any]) -> list[str]:
  reasons = lambda name: [
    x.get(name, {}).get('failed', '') for x in record['sizes'].values()
  ]
  return [name for name in PEERS if sum(HUNG in x for x in reasons(name)) > 1]


def device(args: argparse.Namespace, end: float) -> dict[str, Any] | None:
  """The device to run on; None, having said why, if there is no such or packages lack."""
  if lacking := missing():
    print(f'not available: {lacking}')
    return None
  with Worker(log_of(args)) as worker:
    reply = worker.call('pallas_kernels.bench.tasks:device', 120, end)
  if 'failed' in reply:
    print(f'the device does not say what it is: {reply["failed"]}')
    return None
  found = reply['result']
  if found['unavailable'] and not args.dry_run:
    print(f'not available: {found["unavailable"]}. --dry_run tries all but the kernels.')
    return None
  return found


def log_of(args: argparse.Namespace) -> pathlib.Path | None:
  return pathlib.Path(args.log) if args.log else None


def main(arguments: list[str] | None = None) -> int:
  parser = argparse.ArgumentParser(
    'python -m benchmarks.gpu_steps', description=__doc__, allow_abbrev=False
  )
  parser.formatter_class = argparse.RawDescriptionHelpFormatter
  add = parser.add_argument
  sizes = ','.join(SIZES)
  add('--sizes', default=sizes, help=f'of configs/c4.py, separated by commas ({sizes})')
  add('--rows', type=int, default=64, help='sequences of 256 tokens in a batch (64)')
  add('--steps', type=int, default=10, help='timed steps of each model (10)')
  add('--seconds', type=float, default=280, help='when to stop (280)')
  add('--out', default='runs/gpu_steps', help='folder of the results (runs/gpu_steps)')
  add('--log', help='a file for what the processes print')
  add('--dry_run', action='store_true', help='tiny models, no kernels, on any device')
  args = parser.parse_args(arguments)
  end = time.monotonic() + args.seconds
  args.sizes = list(dict.fromkeys(args.sizes.split(',')))
  if wrong := [size for size in args.sizes if size not in SIZES]:
    parser.error(f'--sizes={wrong[0]}: must be among {sizes}')
  for name in ('rows', 'steps', 'seconds'):
    if not 1 <= getattr(args, name) < math.inf:
      parser.error(f'--{name}={getattr(args, name)}: must be at least 1')
  made(args.out, parser)
  if args.dry_run:
    os.environ.setdefault('JAX_DISABLE_MOST_OPTIMIZATIONS', '1')
  # Of the device's memory; the default of jax is 0.75.
  os.environ.setdefault('XLA_PYTHON_CLIENT_MEM_FRACTION', '0.92')
  found = device(args, end)
  return run(args, found, end) if found else 2


if __name__ == '__main__':
  sys.exit(main())
