"""A proxy on one GPU: low rank with squared ReLU, ELAS by the kernels, and full rank.

  python -m benchmarks.gpu_proxy --seconds=240 --out=DIR

Not the paper's scale: models of 60m of configs/c4.py but for bytes, some minutes, one seed,
on Python source gathered from the installed packages. The control is what ELAS is built on,
the same without pruning (loro_relu2). All get the same data, batches and number of steps:
as many as the measured time of their steps allows. The three run beside each other on the
GPU, by elas_jax.train, each in a process of its own; so their speeds are not compared here.

DIR/proxy_DEVICE.json, .md and .png are written as the curves grow. Needs what training
needs (setup.cfg) and a Hopper GPU; elsewhere --dry_run tries tiny models, ELAS in XLA.
"""

import argparse
import concurrent.futures as futures
import contextlib
import hashlib
import json
import math
import os
import pathlib
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from typing import Any

from benchmarks.gpu_steps import RANK, TINY, about, device, log_of
from benchmarks.gpu_wheels import made
from pallas_kernels.bench import report
from pallas_kernels.bench.environment import ROOT, child_environment
from pallas_kernels.bench.tied import tied
from pallas_kernels.bench.workers import Worker, without_folders
from pallas_kernels.roofline import markdown

CONTROL, ELAS, FULL = 'low rank, squared ReLU', 'ELAS', 'full rank, SwiGLU'
MODELS = {CONTROL: 'loro_relu2', ELAS: 'elas', FULL: 'full'}  # of configs/c4.py
SIZE = '60m'
TRAIN = 'elas_jax.train'
LABEL = (
  "PROXY, not the paper's scale: minutes of training on Python source, as bytes, one seed; "
  'compare the curves with each other, not with published values. What seeds alone change '
  'is not known here.'
)
BYTES = {'model.vocab_size': 257}
LEAST_STEPS, MOST_STEPS = 40, 20_000
START_SECONDS = 60  # of a run, before its first step and for its evaluations
SHARE = 0.8  # of what is left then, for steps
GRACE = 12  # at the end, for runs that must be stopped
POLL = 5
Record = dict[str, Any]


def gather(file: pathlib.Path, megabytes: float, root: str | None = None) -> Record:
  """Writes Python source of the installed packages as JSON lines, each text once.

  In the order of a hash of their names: a sample of all packages, if there are more.
  """
  root = root or sysconfig.get_path('purelib')
  names, folders = [], set()
  for folder, subfolders, files in os.walk(root, followlinks=True):
    if (real := os.path.realpath(folder)) in folders:  # links may form a loop
      subfolders.clear()
      continue
    folders.add(real)
    names += [os.path.relpath(os.path.join(folder, x), root) for x in files]
  names = [name for name in names if name.endswith('.py')]
  names.sort(key=lambda name: hashlib.sha256(name.encode('utf-8', 'replace')).digest())
  seen, size, packages = set(), 0, {}
  with file.open('w') as out:
    for name in names:
      try:
        data = pathlib.Path(root, name).read_bytes()
        text = data.decode()
      except (OSError, UnicodeDecodeError):
        continue
      digest = hashlib.sha256(data).digest()
      if digest in seen or not data:
        continue
      if size + len(data) > megabytes * 1e6:
        break
      seen.add(digest)
      size += len(data)
      package = pathlib.PurePath(name).parts[0]
      packages[package] = packages.get(package, 0) + len(data)
      out.write(json.dumps({'text': text}) + '\n')
  largest = sorted(packages, key=packages.get, reverse=True)[:8]
  return {'files': len(seen), 'bytes': size, 'largest_packages': largest}


def flags(model: str, args: argparse.Namespace, steps: int, folder: pathlib.Path) -> list:
  """What is given to elas_jax.train: the config of c4.py, cut down to so few steps."""
  method, tenth = MODELS[model], max(steps // 10, 1)
  fields = (TINY if args.dry_run else BYTES) | {
    'data.source': 'text_files',
    'data.source.path': folder / 'python.jsonl',
    'data.source.validation_path': '',
    'data.tokenizer': 'bytes',
    'data.source.validation_share': validation_share(args),
    'data.protocol': 'packed',
    'data.sequence_length': args.length,
    'data.batch_size': args.rows,
    'data.cache_dir': folder / 'cache',
    'train.steps': steps,
    'train.log_every': max(steps // 100, 1),
    'train.compilation_cache': '',  # the environment names one
    'schedule.warmup_steps': tenth,
    'checkpoint.every': steps,
    'checkpoint.keep_latest': 1,
    'checkpoint.keep_best': 0,
    'eval.every': tenth,
    'eval.units': 16_384 if args.dry_run else 262_144,
    'eval.batch_size': args.rows,
    'eval.sample_tokens': 0,
    'seed': args.seed,
  }
  if model == FULL:
    fields.pop(RANK, None)
  else:
    fields['optimizer.exact_every'] = max(steps // 5, 1)
  if model == ELAS:
    fields['model.feed_forward.dense_steps'] = tenth
    fields['model.feed_forward.implementation'] = implementation(args)
  return [
    f'--config=configs/c4.py:{SIZE},{method}',
    *(f'--config.{name}={value}' for name, value in fields.items()),
  ]


def implementation(args: argparse.Namespace) -> str:
  return 'xla' if args.dry_run else 'mosaic'


def validation_share(args: argparse.Namespace) -> float:
  """Of the files; few of them could all be of one split."""
  return 0.3 if args.dry_run else 0.05


def prepare(args: argparse.Namespace, folder: pathlib.Path) -> Record:
  """Gathers the text and tokenises it; {'failed': why} if that fails."""
  start = time.monotonic()
  found = gather(folder / 'python.jsonl', args.megabytes)
  words = ['elas_jax.data.prepare', '--source=text_files', '--tokenizer=bytes']
  words += [f'--path={folder / "python.jsonl"}', f'--sequence_length={args.length}']
  words += [f'--cache_dir={folder / "cache"}']
  words += [f'--validation_share={validation_share(args)}']
  given = {'cwd': ROOT, 'env': child_environment(), 'text': True}
  run = subprocess.run(tied(*words), capture_output=True, **given)
  found['seconds'] = round(time.monotonic() - start, 1)
  if run.returncode:
    return found | {'failed': last_line(run.stderr)}
  return found


def last_line(text: str) -> str:
  return without_folders((text.strip().splitlines() or ['no reason was given'])[-1])


def step_times(args: argparse.Namespace, end: float) -> Record:
  """Model -> what a few of its steps say of it; {'failed': why} for those that fail."""
  peers = {name: (method, 'auto') for name, method in MODELS.items()}
  peers[ELAS] = (MODELS[ELAS], implementation(args))
  fields = (TINY if args.dry_run else BYTES) | {'data.sequence_length': args.length}
  module = 'benchmarks.gpu_peers'
  given = {'size': SIZE, 'peers': peers, 'rows': args.rows, 'fields': fields}
  with Worker(log_of(args)) as worker:
    reply = worker.call(f'{module}:build', 150, end, **given)
    built = reply.get('result', dict.fromkeys(peers, reply))
    if 'result' in reply:
      reply = worker.call(f'{module}:turns', 40, end, steps=5)
  timed = reply.get('result', {name: {'failed': reply.get('failed')} for name in peers})
  return {name: built[name] | timed.get(name, {}) for name in peers}


def steps_for(seconds: float, models: Record) -> int:
  """How many steps each model can take in so long together; 0 if that is not known."""
  if any('ms' not in row for row in models.values()):
    return 0
  every = sum(row['ms']['median'] for row in models.values()) / 1e3
  steps = int(SHARE * (seconds - START_SECONDS) / every) // 20 * 20
  return min(MOST_STEPS, steps) if steps >= LEAST_STEPS else 0


class Training:
  """A run of elas_jax.train in a process of its own, and its curves so far."""

  def __init__(self, words: list[str], workdir: pathlib.Path):
    self.workdir, self.log = workdir, workdir.with_suffix('.log')
    with self.log.open('wb') as log:
      self.process = subprocess.Popen(
        tied(TRAIN, *words, f'--workdir={workdir}'),
        cwd=ROOT,
        env=child_environment(),
        stdout=log,
        stderr=log,
        start_new_session=True,
      )
    self.stopped = False

  @property
  def status(self) -> str:
    code = self.process.poll()
    if code is None:
      return 'running'
    if self.stopped:
      return 'stopped before its end'
    if code:
      return f'failed: {last_line(self.log.read_text(errors="replace"))}'
    return 'finished'

  def curves(self) -> Record:
    """Of metrics.jsonl: [step, bits per byte] and what was noted."""
    from elas_jax.run.metrics import read_metrics

    if not (self.workdir / 'metrics.jsonl').exists():
      return {'train': [], 'eval': [], 'notes': []}
    _, lines = read_metrics(self.workdir)
    of = lambda name: [[x['step'], x[name]] for x in lines if x.get(name) is not None]
    return {
      'train': of('train/bits_per_byte'),
      'eval': of('eval/bits_per_byte'),
      'notes': [x['note'] for x in lines if 'note' in x],
    }

  def stop(self, seconds: float) -> None:
    """SIGTERM, upon which it saves and ends; after so long, SIGKILL."""
    if self.process.poll() is not None:
      return
    self.stopped = True
    with contextlib.suppress(ProcessLookupError):
      os.killpg(self.process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
      self.process.wait(seconds)
    with contextlib.suppress(ProcessLookupError):
      os.killpg(self.process.pid, signal.SIGKILL)
    self.process.wait()


def train_all(record: Record, args: argparse.Namespace, folder, end: float, save) -> None:
  """The three runs beside each other; `save` is called whenever there may be more."""
  runs = {}
  try:
    for number, name in enumerate(MODELS):
      words = flags(name, args, record['steps'], folder)
      runs[name] = Training(words, folder / f'run{number}')
      shown = [word for word in words if f'{folder}' not in word]
      row = record['models'].setdefault(name, {})
      row |= {'method': MODELS[name], 'flags': shown}
    while True:
      for name, run in runs.items():
        status = run.status  # before the curves: what has ended has written them
        record['models'][name] |= {'status': status, 'curves': run.curves()}
      save()
      ended = all(run.process.poll() is not None for run in runs.values())
      if ended or time.monotonic() > end - GRACE:
        break
      time.sleep(0.5 if args.dry_run else POLL)
  finally:
    for run in runs.values():
      run.stop(GRACE / 2)
  for name, run in runs.items():
    record['models'][name] |= {'status': run.status, 'curves': run.curves()}
  save()


def render(record: Record) -> str:
  """The record as Markdown."""
  parts = ['# Proxy: ELAS, its control and full rank on one GPU', f'**{LABEL}**']
  if record['dry_run']:
    parts.append('**Dry run: tiny models, ELAS in XLA and not by the kernels.**')
  data = record['data']
  versions = ', '.join(f'{k} {v}' for k, v in record['versions'].items() if v)
  parts.append(
    f'Device: {record["device"]}, driver {record["driver"]}. {versions}. Commit '
    f'{record["commit"]}, kernels {record["source"]}. {record["steps"]} steps of '
    f'{record["rows"]} x {record["length"]} bytes each, seed {record["seed"]}; '
    f'{data["bytes"] / 1e6:.1f} MB of Python source in {data["files"]} files of the '
    f'installed packages (most of {", ".join(data["largest_packages"])}).'
  )
  models = record['models']
  last = {name: (row['curves']['eval'] or [None])[-1] for name, row in models.items()}
  rows = []
  for name, row in models.items():
    cells = [name, row['method'], row['status'], '-', '-', '-']
    if last[name]:
      cells[3:5] = str(last[name][0]), f'{last[name][1]:.4f}'
      if (base := last.get(CONTROL)) and base[0] == last[name][0]:
        cells[5] = f'{last[name][1] - base[1]:+.4f}'
    parameters = row.get('parameters')
    rows.append([*cells, '-' if parameters is None else f'{parameters:,}'])
  header = ['model', 'method', 'run', 'step', 'validation bits per byte', 'minus control']
  parts.append(markdown([*header, 'parameters'], rows))
  parts.append('Validation bits per byte (proxy):')
  curves = {name: dict(map(tuple, row['curves']['eval'])) for name, row in models.items()}
  steps = sorted({step for curve in curves.values() for step in curve})
  cell = lambda curve, step: f'{curve[step]:.4f}' if step in curve else '-'
  rows = [[str(x), *(cell(curve, x) for curve in curves.values())] for x in steps]
  parts.append(markdown(['step', *curves], rows))
  noted = [f'- {name}: {x}' for name, row in models.items() for x in row['curves']['notes']]
  parts += ['\n'.join(noted)] if noted else []
  return '\n\n'.join(parts) + '\n'


def plot(record: Record, path: pathlib.Path) -> None:
  """Validation and training curves, with the label of a proxy."""
  import matplotlib

  matplotlib.use('Agg')  # no display needed
  import matplotlib.pyplot as plt

  figure, axes = plt.subplots(1, 2, figsize=(11, 4.4), layout='constrained', sharey=True)
  for part, title, ax in zip(('eval', 'train'), ('Validation', 'Training'), axes):
    for name, row in record['models'].items():
      if points := row['curves'][part]:
        marker = 'o' if part == 'eval' else None
        ax.plot(*zip(*points), marker=marker, markersize=4, lw=1.2, label=name)
    ax.set(title=title, xlabel='step', ylabel='bits per byte')
    ax.grid(alpha=0.3)
    if ax.lines:
      ax.legend()
  dry = ', DRY RUN' if record['dry_run'] else ''
  figure.suptitle(f'PROXY, one seed, {SIZE} for bytes{dry}: {record["device"]}')
  part = path.with_name(f'.{path.stem}.part.png')
  figure.savefig(part, dpi=120)
  plt.close(figure)
  part.replace(path)


def run(args: argparse.Namespace, found: Record, end: float) -> int:
  """All of it. Returns the exit status."""
  path = pathlib.Path(args.out) / f'proxy_{SIZE}_{found["device"].replace(" ", "_")}'
  record = {'label': LABEL, 'dry_run': args.dry_run, **about(found)}
  record |= {'rows': args.rows, 'length': args.length}
  record |= {'seed': args.seed, 'steps': args.steps, 'models': {}}

  def save():
    report.write_json(path.with_suffix('.json'), record)
    report.write(path.with_suffix('.md'), render(record))
    plot(record, path.with_suffix('.png'))

  with tempfile.TemporaryDirectory(prefix='gpu_proxy') as temporary:
    folder = pathlib.Path(temporary)
    with futures.ThreadPoolExecutor(1) as pool:
      data = pool.submit(prepare, args, folder)
      if not args.steps:
        record['models'] = step_times(args, end)
        record['steps'] = LEAST_STEPS
        if not args.dry_run:
          record['steps'] = steps_for(end - time.monotonic(), record['models'])
      record['data'] = data.result()
    failed = [f'{k}: {x["failed"]}' for k, x in record['models'].items() if 'failed' in x]
    failed += [f'data: {record["data"]["failed"]}'] if 'failed' in record['data'] else []
    if failed or not record['steps']:
      print(f'nothing was trained: {"; ".join(failed) or "no time was left"}')
      report.write_json(path.with_suffix('.json'), record | {'failed': failed})
      return 1
    train_all(record, args, folder, end, save)
  print(render(record))
  return int(any(row['status'] != 'finished' for row in record['models'].values()))


def main(arguments: list[str] | None = None) -> int:
  parser = argparse.ArgumentParser(
    'python -m benchmarks.gpu_proxy', description=__doc__, allow_abbrev=False
  )
  parser.formatter_class = argparse.RawDescriptionHelpFormatter
  add = parser.add_argument
  add('--seconds', type=float, default=280, help='when to stop (280)')
  add('--steps', type=int, default=0, help='of each model; 0: as the time allows (0)')
  add('--rows', type=int, default=64, help='sequences in a batch (64)')
  add('--length', type=int, default=256, help='bytes of a sequence (256)')
  add('--megabytes', type=float, default=100, help='of text, at most (100)')
  add('--seed', type=int, default=0, help='of parameters and batches (0)')
  add('--out', default='runs/gpu_proxy', help='folder of the results (runs/gpu_proxy)')
  add('--log', help='a file for what measuring prints')
  add('--dry_run', action='store_true', help='tiny models and little text, on any device')
  args = parser.parse_args(arguments)
  end = time.monotonic() + args.seconds
  for name in ('seconds', 'rows', 'length', 'megabytes'):
    if not 0 < getattr(args, name) < math.inf:
      parser.error(f'--{name}={getattr(args, name)}: must be above 0')
  if args.steps and args.steps < LEAST_STEPS:
    parser.error(f'--steps={args.steps}: must be 0, or at least {LEAST_STEPS}')
  made(args.out, parser)
  if args.dry_run:
    os.environ.setdefault('JAX_DISABLE_MOST_OPTIMIZATIONS', '1')
    args.rows, args.length = min(args.rows, 8), min(args.length, 32)
    args.megabytes = min(args.megabytes, 0.4)
  found = device(args, end)
  if found is None:
    return 2
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # stop what was started
  return run(args, found, end)


if __name__ == '__main__':
  sys.exit(main())
