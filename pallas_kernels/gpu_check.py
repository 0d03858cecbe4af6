"""Everything that a machine with a Hopper GPU is asked for, in one command below 9 minutes.

  python -m pallas_kernels.gpu_check --out=DIR
  make gpu-check OUT=DIR [PYTHON=python3]

In this order, each in processes of its own that are stopped when their time is over: what
the device is; first contact (one-hot products, every kernel against the reference, and 20
runs of each on the same inputs); the tests that need a GPU; the benchmark; tuning in the
time that is left. Results so far are in DIR after every step: gpu_check.json and .md,
bench.json and .md, tune.json, logs, and the file that tune.py wrote, if it did.

Without a GPU each step says so, and dry runs take the place of benchmark and tuning.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from typing import Any

from pallas_kernels.bench import checks, report
from pallas_kernels.bench.environment import ROOT, child_environment
from pallas_kernels.bench.selection import TASKS
from pallas_kernels.bench.workers import HUNG, Worker, run_all, without_folders
from pallas_kernels.roofline import markdown

NOT_AVAILABLE = 'not available'
FIRST_CONTACT_SECONDS = 150  # at most
TEST_SECONDS = 140
BENCH_SECONDS = 210
LEAST_TUNE_SECONDS = 45
STEP_SECONDS = 75  # for one check, compilation included
SHOWN = 6  # failures in full; gpu_check.json has all
GRACE = 25  # between a command's own end and its being stopped
DRY_BENCH = ['--dry_run', '--ops=up_compress', '--sizes=60m']
DRY_TUNE = ['--dry_run', '--ops=up_compress', '--sizes=60m']


class Check:
  """A run: its record, its folder, and the time it has."""

  def __init__(self, out: pathlib.Path, minutes: float):
    self.out = out
    self.end = time.monotonic() + 60 * minutes
    self.log = out / 'gpu_check.log'
    self.record = {
      'commit': report.commit(),
      'source': report.source(),
      'checks': {},
      'steps': {},
    }

  @property
  def left(self) -> float:
    return self.end - time.monotonic()

  def step(self, name: str, verdict: str, seconds: float, **more: Any) -> None:
    """Keeps and prints how a step went."""
    self.record['steps'][name] = {'verdict': verdict, 'seconds': round(seconds, 1), **more}
    print(f'{name}: {verdict}', flush=True)
    self.save()

  def text(self) -> str:
    return render(self.record, bench_lines(self.out / 'bench.json'))

  def save(self) -> None:
    report.write_json(self.out / 'gpu_check.json', self.record)
    report.write(self.out / 'gpu_check.md', self.text())

  def command(self, name: str, words: list[str], seconds: float, log: pathlib.Path) -> None:
    """Runs `python -m words` for so long at most; its output goes to a log."""
    start = time.monotonic()
    with log.open('ab') as file:
      process = subprocess.Popen(
        [sys.executable, '-m', *words],
        cwd=ROOT,
        env=child_environment(),
        stdout=file,
        stderr=file,
        start_new_session=True,
      )
      try:
        status = process.wait(seconds)
      except subprocess.TimeoutExpired:
        status = None
      finally:
        with contextlib.suppress(ProcessLookupError):
          os.killpg(process.pid, signal.SIGKILL)  # with all that it started
        process.wait()
    passed = {None: f'stopped after {seconds:.0f} s', 0: 'passed'}
    verdict = passed.get(status, f'failed, status {status}')
    lines = without_folders(log.read_text(errors='replace')).strip().splitlines()
    self.step(name, verdict, time.monotonic() - start, last_lines=lines[-5:])


def run(out: pathlib.Path, minutes: float) -> int:
  """All steps. Returns the exit status: 1 if one of them failed."""
  out.mkdir(parents=True, exist_ok=True)
  for path in (*out.glob('*.log'), out / 'bench.json', out / 'bench.md'):
    path.unlink(missing_ok=True)  # of an earlier run
  check = Check(out, minutes)
  unavailable = device(check)
  if unavailable:
    dry_steps(check)
  else:
    first_contact(check)
    gpu_tests(check)
    measure(check)
    tune(check)
  for log in out.glob('*.log'):
    report.write(log, without_folders(log.read_text(errors='replace'))[-4_000_000:])
  print(check.text())
  verdicts = [step['verdict'] for step in check.record['steps'].values()]
  return int(any(verdict.startswith(('failed', 'stopped')) for verdict in verdicts))


def device(check: Check) -> str:
  """Records what the device is; returns why the kernels cannot run there, or ''."""
  start = time.monotonic()
  with Worker(check.log) as worker:
    reply = worker.call(f'{TASKS}:device', 120)
  if 'result' not in reply:
    check.step('device', f'failed: {reply["failed"]}', time.monotonic() - start)
    return reply['failed']
  found = reply['result']
  unavailable = found.pop('unavailable')
  check.record |= found | {'driver': report.driver()}
  verdict = f'{NOT_AVAILABLE}: {unavailable}' if unavailable else found['device']
  check.step('device', verdict, time.monotonic() - start)
  return unavailable


def first_contact(check: Check) -> None:
  """Every check of checks.contact; several processes, so that a hang stops one of them."""
  start, verdicts = time.monotonic(), check.record['checks']
  seed = int(time.time()) % 2**31
  tasks = [{'name': name, 'seed': seed} for name in checks.contact(seed)]
  end = min(check.end, start + FIRST_CONTACT_SECONDS)
  function = 'pallas_kernels.bench.checks:run_contact'
  for task, reply in run_all(function, tasks, STEP_SECONDS, end, check.log):
    verdict = reply.get('result', {'passed': False, **reply})
    verdicts[task['name']] = verdict
    text = 'passed' if verdict['passed'] else f'failed: {json.dumps(verdict)[:400]}'
    print(f'  {task["name"]}: {text}', flush=True)
    check.save()
  failed = [name for name, verdict in verdicts.items() if not verdict['passed']]
  verdict = f'failed: {len(failed)} of {len(verdicts)}' if failed else 'passed'
  check.step('first contact', verdict, time.monotonic() - start, seed=seed, failed=failed)


def gpu_tests(check: Check) -> None:
  if any(HUNG in verdict.get('failed', '') for verdict in check.record['checks'].values()):
    check.step('gpu tests', 'not run: kernels hung in first contact', 0)
    return
  folder = 'tests/pallas_kernels'
  words = ['pytest', '-v', '-m', 'gpu', f'--confcutdir={folder}', '-p', 'no:cacheprovider']
  # Not the error that setup.cfg makes of any warning: versions differ there.
  words += ['-W', 'default', '--tb=short', f'{folder}/gpu_test.py']
  if importlib.util.find_spec('xdist'):
    words += ['-n', '6']
  seconds = min(TEST_SECONDS, check.left)
  log = check.out / 'tests.log'
  check.command('gpu tests', words, seconds, log)
  step = check.record['steps']['gpu tests']
  if step['verdict'] == 'passed' and not re.search(r'\d+ passed', step['last_lines'][-1]):
    check.step('gpu tests', 'failed: none ran', step['seconds'])


def measure(check: Check) -> None:
  seconds = min(BENCH_SECONDS, check.left - GRACE)
  words = ['pallas_kernels.bench', f'--out={check.out}', f'--seconds={seconds:.0f}']
  words += [f'--log={check.log}']
  check.command('bench', words, seconds + GRACE, check.log)


def tune(check: Check) -> None:
  seconds = check.left - GRACE
  if seconds < LEAST_TUNE_SECONDS:
    check.step('tune', 'not run: no time was left', 0)
    return
  steps = check.record['steps'].items()
  if failed := [name for name, step in steps if step['verdict'].startswith('failed')]:
    check.step('tune', f'not run: failed before: {", ".join(failed)}', 0)
    return
  words = ['pallas_kernels.tune', f'--out={check.out}', f'--seconds={seconds:.0f}']
  words += [f'--checks={check.out / "gpu_check.json"}', f'--log={check.log}']
  check.command('tune', words, seconds + GRACE, check.log)


def dry_steps(check: Check) -> None:
  """What can be tried without a GPU; nothing is measured."""
  for name in ('first contact', 'gpu tests'):
    check.step(name, NOT_AVAILABLE, 0)
  for name, words in {'bench': DRY_BENCH, 'tune': DRY_TUNE}.items():
    check.step(name, NOT_AVAILABLE, 0)
    words = [f'pallas_kernels.{name}', *words]
    check.command(f'{name}, dry run', words, 120, check.log)


def render(record: dict[str, Any], bench: str = '') -> str:
  """The record as Markdown: what failed, the benchmark's lines, and last the steps."""
  named = lambda name: f'{name} {record.get(name, "unknown")}'
  about = [named(name) for name in ('device', 'driver', 'commit', 'source')]
  about += [f'{k} {v}' for k, v in record.get('versions', {}).items() if v]
  parts = ['# GPU check', ', '.join(about) + '.']
  failed = {k: v for k, v in record['checks'].items() if not v['passed']}
  for name, verdict in list(failed.items())[:SHOWN]:
    parts.append(f'Failed, {name}: `{json.dumps(verdict)[:800]}`')
  if len(failed) > SHOWN:
    parts.append(f'Failed as well: {", ".join(list(failed)[SHOWN:])}')
  for name, step in record['steps'].items():
    if step.get('last_lines') and step['verdict'] != 'passed':
      parts += [f'The end of {name}:', '```\n' + '\n'.join(step['last_lines']) + '\n```']
  if bench:
    parts.append(bench)
  if record['checks']:
    passed = len(record['checks']) - len(failed)
    parts.append(f'First contact: {passed} of {len(record["checks"])} passed.')
  steps = record['steps'].items()
  rows = [[name, step['verdict'], f'{step["seconds"]:.0f}'] for name, step in steps]
  parts.append(markdown(['step', 'verdict', 'seconds'], rows))
  return '\n\n'.join(parts) + '\n'


def bench_lines(path: pathlib.Path) -> str:
  """One line for each case of a bench.json."""
  if not path.exists():
    return ''
  items = json.loads(path.read_text())['items']
  return '\n'.join(f'- {report.line(item)}' for item in items)


def main(arguments: list[str] | None = None) -> int:
  parser = argparse.ArgumentParser(
    'python -m pallas_kernels.gpu_check', description=__doc__, allow_abbrev=False
  )
  parser.formatter_class = argparse.RawDescriptionHelpFormatter
  add = parser.add_argument
  add('--out', default='runs/gpu_check', help='the folder of the results (runs/gpu_check)')
  add('--minutes', type=float, default=8.7, help='how long it may take (8.7)')
  args = parser.parse_args(arguments)
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # stop what was started
  return run(pathlib.Path(args.out).resolve(), args.minutes)


if __name__ == '__main__':
  sys.exit(main())
