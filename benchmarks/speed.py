"""Speed and memory of data path, loop and decoder here, with PyTorch as the peer.

  python -m benchmarks.speed --peer=torch --peer_python=/path/to/python-with-torch

Writes benchmarks/results/speed/DEVICE.json and .md. Parts (--only=step,host,...):
  step     a full-rank training step, in turns with the peer's
  host     what the loop costs beside the device: the same loop around an empty step
  data     preparing python_source, and reading its blocks on one core
  start    a second start of the default run, until its first step
  default  the default run (`make train`): time, memory, bits per byte
Every figure is a median of several repetitions with minimum and maximum, except that of
`default`, a single run.
"""

import dataclasses
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import jax
import numpy as np

from configs import default
from elas_jax.common.errors import UserError
from elas_jax.config.cli import Parser, run_command
from elas_jax.config.config import Config
from elas_jax.config.overrides import set_fields
from elas_jax.config.parsing import parse
from elas_jax.data.blocks import prepare
from elas_jax.data.pipeline import train_batches
from elas_jax.run.evaluation import put_batch
from elas_jax.run.host_memory import keep_freed_memory, share_one_arena
from elas_jax.run.log import Log
from elas_jax.run.metrics import (
  MetricsWriter,
  describe_run,
  machine,
  read_metrics,
  strict_json,
)
from elas_jax.run.optimizer import learning_rate
from elas_jax.run.sharding import make_mesh
from elas_jax.run.state import create_state, parameter_count
from elas_jax.run.step import jit_train_step
from elas_jax.tasks import LANGUAGE

STEP_CASES = {
  'D128 F512 N4 H4 L128 B16': (128, 512, 4, 4, 128, 16),
  'D256 F1024 N6 H8 L256 B8': (256, 1024, 6, 8, 256, 8),
}
ROUNDS, STEPS_A_ROUND = 5, 20


def summary(seconds: list[float]) -> dict[str, float]:
  return {
    'median': statistics.median(seconds),
    'min': min(seconds),
    'max': max(seconds),
    'repetitions': len(seconds),
  }


def config_with(fields: dict[str, Any] | None = None) -> Config:
  config = default.get_config()
  set_fields(config, fields or {})
  return parse(config)


def step_config(case: tuple[int, ...]) -> Config:
  D, F, N, H, L, B = case
  return config_with(
    {
      'model.vocab_size': 256,
      'model.width': D,
      'model.feed_forward_width': F,
      'model.layers': N,
      'model.unroll': N,
      'model.attention.heads': H,
      'model.linear': 'dense',
      'model.feed_forward': 'glu',
      # As the peer, which has neither.
      'optimizer.embedding_rate': 0.0,
      'data.document_mask': False,
      'data.sequence_length': L,
      'data.batch_size': B,
      'eval.batch_size': B,
    }
  )


def random_batch(config: Config) -> dict[str, np.ndarray]:
  L, B = config.data.sequence_length, config.data.batch_size
  return {
    'tokens': np.random.default_rng(0).integers(0, 256, (B, L + 1)).astype(np.int32),
    'valid': np.full(B, L, np.int32),
    'bytes': np.full(B, L, np.int32),
  }


def timed_steps(
  step: Any, state: Any, batch: Any, mesh: Any, count: int
) -> tuple[Any, list[float]]:
  seconds = []
  for _ in range(count):
    start = time.perf_counter()
    state, metrics = step(state, put_batch(batch, mesh))
    jax.block_until_ready((state, metrics))
    seconds.append(time.perf_counter() - start)
  return state, seconds


def measure_step(peer_python: str | None) -> dict[str, Any]:
  results = {}
  for name, case in STEP_CASES.items():
    config = step_config(case)
    mesh, batch = make_mesh(config), random_batch(config)
    own, peer, peer_result = [], [], {}
    with jax.set_mesh(mesh):
      step = jit_train_step(config, mesh)
      state, _ = timed_steps(step, create_state(config, mesh), batch, mesh, 3)
      for _ in range(ROUNDS):  # in turns, so that both see the same machine
        state, seconds = timed_steps(step, state, batch, mesh, STEPS_A_ROUND)
        own += seconds
        if peer_python:
          peer_result = run_peer(peer_python, config)
          peer += peer_result.pop('seconds')
    parameters = parameter_count(state.params)
    results[name] = {'parameters': parameters, 'elas_jax': summary(own)}
    if peer:
      if peer_result['parameters'] != parameters:
        raise RuntimeError(f'{name}: the peer has other parameters: {peer_result}')
      ratio = statistics.median(peer) / statistics.median(own)
      results[name] |= {'torch': summary(peer), 'peer': peer_result, 'speedup': ratio}
  return results


def run_peer(python: str, config: Config) -> dict[str, Any]:
  case = dataclasses.asdict(config.model) | dataclasses.asdict(config.data)
  case['heads'] = config.model.attention.heads
  script = str(pathlib.Path(__file__).with_name('torch_peer.py'))
  command = [python, script, json.dumps(case), str(STEPS_A_ROUND)]
  done = subprocess.run(command, capture_output=True, text=True)
  if done.returncode:
    raise UserError(
      f'--peer_python={python}: cannot run the peer: {done.stderr.strip().splitlines()[-1]}'
    )
  return json.loads(done.stdout.splitlines()[-1])


def measure_host() -> dict[str, float]:
  """Seconds of one turn of the loop when the device has nothing to do."""
  config = config_with()
  mesh = make_mesh(config)
  blocks = prepare(config.data.source.corpus(config.data)).train
  empty = jax.jit(
    lambda state, batch: (
      state,
      {k: batch['valid'].sum() * 1.0 for k in ('loss', 'count', 'bytes', 'grad_norm')},
    ),
    donate_argnums=0,
  )
  with tempfile.TemporaryDirectory() as folder, jax.set_mesh(mesh):
    state = create_state(config, mesh)
    batches = iterator(config, blocks)
    log = Log(
      MetricsWriter(pathlib.Path(folder), 0, False),
      learning_rate(config),
      steps=10**6,
      start=0,
      log_every=config.train.log_every,
      task=LANGUAGE,
      unit_flops=1.0,
      peak_flops=None,
    )
    seconds = []
    for number in range(1, 1001):
      start = time.perf_counter()
      with log.waiting():
        batch = next(batches)
      state, metrics = empty(state, put_batch(batch, mesh))
      log.push(number, metrics)
      seconds.append(time.perf_counter() - start)
    log.close()
  return {'turn': summary(seconds[100:])}


def iterator(config: Config, blocks: Any) -> Any:
  return train_batches(
    blocks,
    batch_size=config.data.batch_size,
    seed=0,
    process_index=0,
    process_count=1,
    read_threads=config.data.read_threads,
    prefetch=config.data.prefetch,
  )


def measure_data() -> dict[str, Any]:
  prepare_rates = []
  for _ in range(5):
    with tempfile.TemporaryDirectory() as cache:
      start = time.perf_counter()
      subprocess.run(
        [sys.executable, '-m', 'elas_jax.data.prepare', f'--cache_dir={cache}'],
        check=True,
        capture_output=True,
      )
      seconds = time.perf_counter() - start
      config = config_with({'data.cache_dir': cache})
      prepared = prepare(config.data.source.corpus(config.data))
      size = prepared.train.text_bytes + prepared.validation.text_bytes
      prepare_rates.append(size / seconds / 1e6)
  config = config_with({'data.batch_size': 64})
  blocks = prepare(config.data.source.corpus(config.data)).train
  cores = os.sched_getaffinity(0)
  os.sched_setaffinity(0, {min(cores)})  # threads started from here on inherit it
  rates = []
  for _ in range(5):
    batches, tokens = iterator(config, blocks), 0
    start = time.perf_counter()
    for _ in range(400):
      tokens += int(next(batches)['valid'].sum())
    rates.append(tokens / (time.perf_counter() - start) / 1e6)
  os.sched_setaffinity(0, cores)
  return {
    'prepare_megabytes_per_second': summary(prepare_rates),
    'read_million_tokens_per_second_one_core': summary(rates),
  }


def train_command(folder: pathlib.Path, workdir: str, *overrides: str) -> list[str]:
  return [
    sys.executable,
    '-m',
    'elas_jax.train',
    '--config=configs/default.py',
    f'--workdir={folder / workdir}',
    f'--config.data.cache_dir={folder / "cache"}',
    f'--config.train.compilation_cache={folder / "compiled"}',
    *overrides,
  ]


def measure_start() -> dict[str, float]:
  """Seconds from the command to its first step, with everything cached."""
  seconds = []
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    for number in range(4):
      start = time.perf_counter()
      command = train_command(folder, f'run{number}', '--config.train.steps=2')
      with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
          if line.startswith('step 1/'):
            seconds.append(time.perf_counter() - start)
            process.kill()
            break
      if number == 0:  # only a finished run has surely written its compiled programs
        subprocess.run(
          train_command(folder, 'first', '--config.train.steps=2'),
          check=True,
          capture_output=True,
        )
  return {'first_start': seconds[0], 'later_starts': summary(seconds[1:])}


def measure_default() -> dict[str, Any]:
  """The default run from empty caches, as `make train` does it after installation."""
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    start = time.perf_counter()
    process = subprocess.Popen(
      train_command(folder, 'run'), stdout=subprocess.PIPE, text=True
    )
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
      raise RuntimeError(output[-2000:])
    _, lines = read_metrics(folder / 'run')
    last = [line for line in lines if 'eval/loss' in line][-1]
    timed = [line for line in lines if 'train/tokens_per_second' in line]
    speeds = [line['train/tokens_per_second'] for line in timed]
  return {
    'seconds': seconds,
    'peak_memory_gigabytes': usage.ru_maxrss * 1024 / 1e9,
    'validation_bits_per_byte': last['eval/bits_per_byte'],
    'validation_perplexity': last['eval/perplexity'],
    'steps': last['step'],
    'data_wait_share_largest': max(line['train/data_wait_share'] for line in timed),
    'tokens_per_second': summary(speeds),
  }


PARTS = {
  'host': measure_host,
  'data': measure_data,
  'start': measure_start,
  'default': measure_default,
}


def rendered(result: dict[str, Any]) -> str:
  """The result as Markdown."""
  run = result['run']
  lines = [
    f'# Speed on {result["machine"]}',
    '',
    f'Commit {run["commit"][:12]}, {run["time"]}, jax {run["versions"]["jax"]}. '
    'Medians with [minimum, maximum]; made by `python -m benchmarks.speed`.',
    '',
    '| what | elas-jax | PyTorch eager | PyTorch / elas-jax |',
    '|---|---|---|---|',
  ]
  span = lambda s, scale, unit: (
    f'{s["median"] * scale:.4g} {unit} [{s["min"] * scale:.4g}, {s["max"] * scale:.4g}]'
  )
  for name, case in result.get('step', {}).items():
    peer = span(case['torch'], 1e3, 'ms') if 'torch' in case else 'not measured'
    ratio = f'{case["speedup"]:.2f}' if 'speedup' in case else ''
    own = span(case['elas_jax'], 1e3, 'ms')
    lines.append(f'| training step, {name} | {own} | {peer} | {ratio} |')
  rows = []
  if 'host' in result:
    rows.append(('loop around an empty step', span(result['host']['turn'], 1e3, 'ms')))
  if 'data' in result:
    data = result['data']
    rate = span(data['prepare_megabytes_per_second'], 1, 'MB/s')
    rows.append(('preparing python_source', rate))
    rate = span(data['read_million_tokens_per_second_one_core'], 1, 'M tokens/s')
    rows.append(('reading blocks, one core', rate))
  if 'start' in result:
    rows.append(('first start to first step', f'{result["start"]["first_start"]:.1f} s'))
    rows.append(('later starts', span(result['start']['later_starts'], 1, 's')))
  for name, value in result.get('default', {}).items():
    shown = span(value, 1, '') if isinstance(value, dict) else f'{value:.4g}'
    rows.append((f'default run: {name.replace("_", " ")}', shown))
  lines += [f'| {what} | {value} | | |' for what, value in rows]
  return '\n'.join(lines) + '\n'


def main(arguments: list[str] | None = None) -> None:
  parser = Parser(prog='python -m benchmarks.speed', description=__doc__.split('\n')[0])
  names = ['step', *PARTS]
  parser.add_argument('--only', default=','.join(names), help='parts, with commas')
  parser.add_argument('--peer', choices=['none', 'torch'], default='none')
  parser.add_argument('--peer_python', default=sys.executable, help='Python with torch')
  parser.add_place('--output', default='benchmarks/results/speed')
  options = parser.parse_args(arguments)
  chosen = options.only.split(',')
  if not set(chosen) <= set(names):
    raise UserError(f'--only={options.only}: must be of {", ".join(names)}')
  share_one_arena()
  keep_freed_memory()
  device = machine()
  result = {'run': describe_run(), 'machine': device}
  for name in chosen:
    print(f'measuring {name}', flush=True)
    if name == 'step':
      peer = options.peer_python if options.peer == 'torch' else None
      result[name] = measure_step(peer)
    else:
      result[name] = PARTS[name]()
    print(json.dumps(result[name], indent=2))
  folder = options.output
  folder.mkdir(parents=True, exist_ok=True)
  stem = re.sub(r'[^a-z0-9]+', '_', device.lower()).strip('_')
  (folder / f'{stem}.json').write_text(strict_json(result, indent=2) + '\n')
  (folder / f'{stem}.md').write_text(rendered(result))
  print(rendered(result))
  print(f'written to {folder}/{stem}.json and .md')


if __name__ == '__main__':
  run_command(main)
