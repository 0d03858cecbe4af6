"""The record of a run: rates, shares of the floor, and all of it as Markdown."""

import hashlib
import json
import math
import os
import pathlib
import subprocess
from typing import Any

from pallas_kernels.bench.candidates import sweep_line
from pallas_kernels.bench.environment import ROOT
from pallas_kernels.bench.peers import DENSE_XLA, PRUNED_XLA
from pallas_kernels.bench.timing import TIMERS
from pallas_kernels.roofline import Machine, Op, markdown

Record = dict[str, Any]
CEILINGS = 'pallas_kernels.bench.ceilings'
SHOWN = 6  # failed checks in full; the record has all


def commit() -> str:
  """Of the source tree, with '-modified' if it differs; 'unknown' without Git."""
  git = lambda *words: subprocess.run(
    ['git', '-C', str(ROOT), *words], capture_output=True, text=True
  )
  try:
    head = git('rev-parse', 'HEAD')
    changed = git('status', '--porcelain', '--untracked-files=no', '--', 'pallas_kernels')
  except OSError:
    return 'unknown'
  if head.returncode:
    return 'unknown'
  return head.stdout.strip()[:12] + ('-modified' if changed.stdout.strip() else '')


def source() -> str:
  """A hash of the kernels' code, which says what was measured where Git cannot."""
  digest = hashlib.sha256()
  for path in sorted((ROOT / 'pallas_kernels/two_four').rglob('*.py')):
    digest.update(path.name.encode() + b'\0' + path.read_bytes())
  return digest.hexdigest()[:12]


def driver() -> str:
  query = ['nvidia-smi', '--query-gpu=driver_version', '--format=csv,noheader']
  try:
    found = subprocess.run(query, capture_output=True, text=True, timeout=30)
  except (OSError, subprocess.TimeoutExpired):
    return 'unknown'
  return found.stdout.split('\n')[0].strip() or 'unknown'


def write(path: pathlib.Path, text: str) -> None:
  """All of it or nothing, should the process be stopped."""
  path.parent.mkdir(parents=True, exist_ok=True)
  part = path.with_name(f'.{path.name}.part')
  part.write_text(text)
  os.replace(part, path)


def write_json(path: pathlib.Path, value: Any) -> None:
  """JSON has no NaN and no infinity: they become the texts 'nan', 'inf' and '-inf'."""
  write(path, json.dumps(_finite(value), indent=1, allow_nan=False) + '\n')


def _finite(value: Any) -> Any:
  if isinstance(value, dict):
    return {name: _finite(x) for name, x in value.items()}
  if isinstance(value, list | tuple):
    return [_finite(x) for x in value]
  return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def machine(record: Record) -> Machine | None:
  """The peaks that this run measured."""
  peaks = record.get('peaks', {})
  if 'matmul_tflops' not in peaks:
    return None
  return Machine(peaks['matmul_tflops'], peaks['bandwidth_tb'])


def rates(entry: Record, floor: list[Op], flops: float, peaks: Machine | None) -> Record:
  """What follows from a time; nothing if there is none."""
  if 'us' not in entry:
    return {}
  us = entry['us']['median']
  found = {'gb_per_s': round(sum(op.bytes for op in floor) / us / 1e3, 1)}
  if flops:
    found['tflops'] = round(flops / us / 1e6, 1)
  if peaks:
    found['floor_us'] = round(peaks.floor(floor), 2)
    found['share'] = round(peaks.floor(floor) / us, 4)
  return found


def line(item: Record) -> str:
  """One line about a case or a layer."""
  if 'failed' in item:
    return f'{item["name"]}: failed: {item["failed"]}'
  parts = []
  for name, entry in item['peers'].items():
    gain = against(item, entry)
    gain = f' ({gain}x)' if gain not in ('', '1.00') else ''
    text = f'{entry["us"]["median"]:.1f} us{gain}' if 'us' in entry else 'failed'
    parts.append(f'{name} {text}')
  return f'{item["name"]}: {", ".join(parts)}'


def against(item: Record, entry: Record) -> str:
  """How many times as fast as XLA's dense peer, or its 2:4 where there is no dense one."""
  peers = item['peers']
  base = peers.get(DENSE_XLA) or peers.get(PRUNED_XLA) or {}
  if 'us' not in base or 'us' not in entry:
    return ''
  return f'{base["us"]["median"] / entry["us"]["median"]:.2f}'


def failures(item: Record, of: str = '') -> list[str]:
  """What failed of an item, by peer; such a peer is not timed.

  Args:
    of: how the names of peers begin.
  """
  if 'failed' in item:
    return [f'{item["name"]}: {item["failed"]}']
  return [
    f'{item["name"]}, {name}: {entry["failed"]}'
    for name, entry in item['peers'].items()
    if 'failed' in entry and name.startswith(of)
  ]


def render(record: Record) -> str:
  """The whole record as Markdown: what failed first, the steps last."""
  parts = ['# GPU check', about(record), *_wrong(record)]
  for name, found in record.get('diagnosis', {}).items():
    rows = [[variant, _verdict(x)] for variant, x in found.items()]
    parts += [f'{name}, changed:', markdown(['change', 'verdict'], rows)]
  if table := record.get('ceilings_table'):
    parts.append(table.strip())
  items = record['items']
  for op in dict.fromkeys(item['op'] for item in items):
    of_op = [item for item in items if item['op'] == op]
    parts += [f'## {op}', _table(of_op)]
  if failed := [x for item in items for x in failures(item)]:
    parts += ['## Failed, and so not timed', '\n'.join(f'- {x}' for x in failed)]
  if record['sweeps']:
    lines = [f'- {key}: {sweep_line(rows)}' for key, rows in record['sweeps'].items()]
    parts += ['## Tiles', '\n'.join(lines)]
  return '\n\n'.join([*parts, *_steps(record)]) + '\n'


def _wrong(record: Record) -> list[str]:
  """The checks that did not pass, a few of them in full."""
  verdicts = record['checks']
  failed = {k: v for k, v in verdicts.items() if not v['passed']}
  parts = []
  for name, verdict in list(failed.items())[:SHOWN]:
    parts.append(f'Failed, {name}: `{json.dumps(_finite(verdict))[:800]}`')
  if len(failed) > SHOWN:
    parts.append(f'Failed as well: {", ".join(list(failed)[SHOWN:])}')
  if verdicts:
    passed = len(verdicts) - len(failed)
    parts.append(f'First contact: {passed} of {len(verdicts)} passed.')
  return parts


def _verdict(verdict: Record) -> str:
  if verdict['passed']:
    return 'right'
  return verdict.get('failed') or f'wrong, {verdict["wrong_rows"]} rows'


def _steps(record: Record) -> list[str]:
  """How each step went, and the last lines of a command that did not pass."""
  parts, rows = [], []
  for name, step in record['steps'].items():
    if step.get('last_lines') and step['verdict'] != 'passed':
      parts += [f'The end of {name}:', '```\n' + '\n'.join(step['last_lines']) + '\n```']
    for kind in ('not_run', 'dumped'):
      if step.get(kind):
        parts.append(f'{name}, {kind.replace("_", " ")}: {", ".join(step[kind])}')
    rows.append([name, step['verdict'], f'{step["seconds"]:.0f}'])
  return [*parts, markdown(['step', 'verdict', 'seconds'], rows)]


def about(record: Record) -> str:
  """The device, what is installed for it, and its peaks."""
  known = lambda name: record.get(name, 'unknown')
  versions = ', '.join(f'{k} {v}' for k, v in record.get('versions', {}).items() if v)
  lines = [
    f'Device: {known("device")}, driver {known("driver")}. {versions}. Commit '
    f'{record["commit"]}, kernels {record["source"]}.',
    f'ptxas: {known("ptxas")}; CUDA of jax: {known("cuda_path")}; {known("cpus")} CPUs. '
    f'Memory: {_gigabytes(record, "memory_bytes")} of the device, '
    f'{_gigabytes(record, "host_memory_bytes")} of the machine.',
  ]
  if 'timer' in record:
    failed = record.get('timer_failed')
    lines.append(
      f'{record["repetitions"]} repetitions, the peers in turns; median, least and most. '
      f'Timer: {TIMERS[record["timer"]]}{f" (CUPTI failed: {failed})" if failed else ""}. '
      'PyTorch has a process of its own, and CUDA events.'
    )
    lines.append(_peaks(record.get('peaks', {})))
  return '\n'.join(lines)


def _gigabytes(record: Record, name: str) -> str:
  size = record.get(name)
  return 'unknown' if size is None else f'{size / 1e9:.0f} GB'


def _peaks(peaks: Record) -> str:
  if 'matmul_tflops' not in peaks:
    return f'The peaks were not measured ({peaks.get("failed")}): no floors.'
  return (
    f'Peaks measured in this run: {peaks["matmul_tflops"]:g} TFLOP/s on a dense bf16 '
    f'product, {peaks["bandwidth_tb"]:g} TB/s on a copy. The floor of each row is made of '
    'these, and of twice the dense rate for 2:4 products. TFLOP/s count the FLOPs of the '
    'dense operation, GB/s the least bytes.'
  )


def _table(items: list[Record]) -> str:
  layers = items[0]['op'] == 'layer'
  header = ['case', 'peer', 'us', 'least', 'most', 'wall us', 'TFLOP/s', 'GB/s', 'floor us']
  header += ['share of floor', 'against XLA', 'error']
  header += ['temporary MB', 'output MB', 'peak MB', 'saved MB'] if layers else []
  rows = []
  for item in items:
    for name, entry in item.get('peers', {}).items():
      tile = f' ({entry["tile"]})' if 'tile' in entry else ''
      rows.append([item['name'], f'{name}{tile}', *_cells(item, entry)])
      rows[-1] += [_megabytes(item, entry, kind) for kind in MEMORY] if layers else []
  return markdown(header, rows)


MEMORY = ('temp_bytes', 'output_bytes', 'device_peak_bytes', 'saved_bytes')


def _cells(item: Record, entry: Record) -> list[str]:
  number = lambda x, form: '-' if x is None else format(x, form)
  error = number(entry.get('error'), '.1e')
  if 'us' not in entry:
    return ['failed', *['-'] * 8, error]
  us, wall = entry['us'], entry.get('wall_us', {}).get('median')
  other = f' ({entry["timer"]})' if 'timer' in entry else ''
  return [
    f'{us["median"]:.1f}{other}',
    *(f'{us[kind]:.1f}' for kind in ('min', 'max')),
    number(wall, '.1f'),
    number(entry.get('tflops'), '.0f'),
    number(entry.get('gb_per_s'), '.0f'),
    number(entry.get('floor_us'), '.1f'),
    number(entry.get('share'), '.0%'),
    against(item, entry) or '-',
    error,
  ]


def _megabytes(item: Record, entry: Record, kind: str) -> str:
  """With its share of what XLA without 2:4 takes."""
  size, base = entry.get(kind), item['peers'].get(DENSE_XLA, {}).get(kind)
  share = f' ({size / base:.2f})' if size and base else ''
  return '-' if size is None else f'{size / 1e6:.0f}{share}'
