"""Whole training steps on one GPU, with the 2:4 kernels and without, in turns.

  python -m experiments.gpu_steps --sizes=350m,60m --out=experiments/results/gpu

For each size of configs/c4.py, on random tokens: the full-rank SwiGLU model, the low-rank
one with squared ReLU, and ELAS, whose 2:4 is dense XLA once and our kernels once. All four
are compiled first (several at a time: this is most of the work); then each runs a step in
turn, timed by the clock from the call to the last of its results. OUT/steps_DEVICE.json is
written after every size. Needs what training needs (setup.cfg) and a Hopper GPU; elsewhere
`--tiny` tries everything but the kernels, on models that mean nothing.
"""

import argparse
import concurrent.futures as futures
import pathlib
import statistics
import sys
import time
from typing import Any

import jax
import numpy as np

from configs import c4
from elas_jax.config import at_step, parse
from elas_jax.evaluate import put_batch
from elas_jax.sharding import make_mesh
from elas_jax.state import create_state, parameter_count
from elas_jax.train import jit_train_step
from pallas_kernels.bench import report, tasks
from pallas_kernels.bench.workers import reason
from pallas_kernels.two_four import dispatch

# Name -> METHOD of configs/c4.py, and what its 2:4 operations run on.
PEERS = {
  'full rank, SwiGLU': ('full', 'xla'),
  'low rank, squared ReLU': ('loro_relu2', 'xla'),
  'ELAS, dense XLA': ('elas', 'xla'),
  'ELAS, kernels': ('elas', 'mosaic'),
}
CONTROL = 'low rank, squared ReLU'
WARMUP = 2  # steps that are not counted
TINY = {
  'layers': 1,
  'vocab_size': 300,
  'width': 64,
  'heads': 2,
  'kv_heads': 2,
  'rank': 16,
}


def config_of(size: str, method: str, rows: int, tiny: bool) -> Any:
  tree = c4.get_config(f'{size},{method}')
  # Tokens are random: neither text nor tokenizer is read.
  tree.data.source, tree.data.tokenizer, tree.data.path = 'python_source', 'bytes', ''
  tree.data.batch_size = rows
  tree.model.two_four_dense_steps = 0  # ELAS prunes from the first step on
  if tiny:
    tree.model.update(TINY)
  return parse(tree)


def random_batch(config: Any, seed: int = 0) -> dict[str, np.ndarray]:
  rows, L = config.data.batch_size, config.data.sequence_length
  tokens = np.random.default_rng(seed).integers(0, config.model.vocab_size, (rows, L + 1))
  whole = np.full(rows, L, np.int32)
  return {'tokens': tokens.astype(np.int32), 'valid': whole, 'bytes': whole}


class Peer:
  """A model with its state on the device, and its step."""

  def __init__(self, size: str, method: str, implementation: str, rows: int, tiny: bool):
    self.config = config_of(size, method, rows, tiny)
    self.mesh = make_mesh(self.config)
    with jax.set_mesh(self.mesh), dispatch.preferring(implementation):
      self.state = create_state(self.config, self.mesh)
      self.batch = put_batch(random_batch(self.config), self.mesh)
      step = jit_train_step(self.config, self.mesh, at_step(self.config, 1))
      self.lowered = step.lower(self.state, self.batch)
    self.kernels = self.lowered.as_text().count('mosaic_gpu')

  def compile(self) -> float:
    start = time.perf_counter()
    self.program = self.lowered.compile()
    return time.perf_counter() - start

  def step(self) -> float:
    """Takes a step; its milliseconds."""
    with jax.set_mesh(self.mesh):
      start = time.perf_counter()
      self.state, self.metrics = self.program(self.state, self.batch)
      jax.block_until_ready((self.state, self.metrics))
      return 1e3 * (time.perf_counter() - start)


def measure(size: str, rows: int, steps: int, tiny: bool) -> dict[str, dict[str, Any]]:
  """Peer -> its row; one that cannot run has {'failed': why}."""
  found, peers = {}, {}
  for name, (method, implementation) in PEERS.items():
    try:
      peers[name] = Peer(size, method, implementation, rows, tiny)
    except NotImplementedError as error:
      found[name] = {'failed': reason(error)}
  with futures.ThreadPoolExecutor(len(peers)) as pool:
    seconds = dict(zip(peers, pool.map(Peer.compile, peers.values())))
  samples = {name: [] for name in peers}
  for number in range(WARMUP + steps):
    for name, peer in peers.items():
      milliseconds = peer.step()
      if number >= WARMUP:
        samples[name].append(milliseconds)
  for name, peer in peers.items():
    median = statistics.median(samples[name])
    found[name] = {
      'ms': {'median': median, 'min': min(samples[name]), 'max': max(samples[name])},
      'tokens_per_second': rows * peer.config.data.sequence_length / median * 1e3,
      'parameters': parameter_count(peer.state.params),
      'temporary_bytes': peer.program.memory_analysis().temp_size_in_bytes,
      'kernels': peer.kernels,
      'compile_seconds': seconds[name],
      'loss': float(peer.metrics['loss'] / peer.metrics['count']),
    }
  return {name: found[name] for name in PEERS}


def render(record: dict[str, Any]) -> str:
  """The record as Markdown."""
  lines = [
    '# Training steps',
    f'Device: {record["device"]}, driver {record["driver"]}. Commit {record["commit"]}, '
    f'kernels {record["source"]}. {record["rows"]} rows of 256 random tokens, '
    f'{record["repetitions"]} steps in turns after {WARMUP}: median, least and most.',
    '| size | model | ms | least | most | against the control | tokens/s | temporary GB '
    '| kernels in the program | parameters |',
    '| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |',
  ]
  rows = []
  for size, peers in record['sizes'].items():
    control = peers[CONTROL].get('ms', {}).get('median')
    for name, row in peers.items():
      if 'failed' in row:
        rows.append(f'| {size} | {name} | {row["failed"]} |' + '  |' * 7)
        continue
      ms = row['ms']
      ratio = f'{control / ms["median"]:.3f}' if control else '-'
      cells = [size, name, *(f'{ms[k]:.2f}' for k in ('median', 'min', 'max')), ratio]
      cells += [f'{row["tokens_per_second"]:,.0f}', f'{row["temporary_bytes"] / 1e9:.2f}']
      cells += [row['kernels'], f'{row["parameters"]:,}']
      rows.append(f'| {" | ".join(map(str, cells))} |')
  return '\n\n'.join(lines[:2]) + '\n\n' + '\n'.join(lines[2:] + rows) + '\n'


def main(arguments: list[str] | None = None) -> int:
  parser = argparse.ArgumentParser(
    'python -m experiments.gpu_steps', description=__doc__, allow_abbrev=False
  )
  parser.formatter_class = argparse.RawDescriptionHelpFormatter
  add = parser.add_argument
  add('--sizes', default='350m', help='of configs/c4.py, separated by commas (350m)')
  add('--rows', type=int, default=64, help='sequences of 256 tokens in a batch (64)')
  add('--steps', type=int, default=10, help='timed steps of each peer (10)')
  add('--out', default='runs/gpu_steps', help='folder of the results (runs/gpu_steps)')
  add('--tiny', action='store_true', help='small models, on any device: times mean nothing')
  args = parser.parse_args(arguments)
  sizes = args.sizes.split(',')
  if wrong := [size for size in sizes if size not in c4.SIZES]:
    parser.error(f'--sizes={wrong[0]}: must be among {", ".join(c4.SIZES)}')
  for name in ('rows', 'steps'):
    if getattr(args, name) < 1:
      parser.error(f'--{name}={getattr(args, name)}: must be at least 1')
  found = tasks.device()
  if found['unavailable'] and not args.tiny:
    print(f'not available: {found["unavailable"]}. --tiny tries all but the kernels.')
    return 2
  about = {'device': found['device'], 'driver': report.driver()}
  about |= {'versions': found['versions'], 'commit': report.commit()}
  about |= {'source': report.source(), 'rows': args.rows, 'repetitions': args.steps}
  record = about | {'sizes': {}}
  path = pathlib.Path(args.out) / f'steps_{found["device"].replace(" ", "_")}'
  for size in sizes:
    record['sizes'][size] = measure(size, args.rows, args.steps, args.tiny)
    report.write_json(path.with_suffix('.json'), record)
    report.write(path.with_suffix('.md'), render(record))
    print(f'{size} done', flush=True)
  print(render(record))
  return 0


if __name__ == '__main__':
  sys.exit(main())
