"""Everything that a machine with a Hopper GPU is asked for, in calls of a few minutes.

  python -m pallas_kernels.gpu_check --call=1 --out=DIR
  python -m pallas_kernels.gpu_check --call=2 --out=DIR --checks=DIR1/gpu_check.json
  python -m pallas_kernels.gpu_check --call=3 --out=DIR --checks=DIR1/gpu_check.json
  python -m pallas_kernels.gpu_check --steps=layers,kernels --only='1b|N512' --out=DIR

Call 1 checks every kernel and times the sparse product, below 6 minutes; call 2 times
layers and training steps, below 5; call 3 tunes, and times single kernels, below 4. What
has not passed all checks of first contact, with these kernels on this device, is not timed:
the checks are run first, or --checks=FILE has them. If one fails, it is diagnosed instead.

All that may hang runs in processes of its own, which are stopped then, or when the time is
over. DIR, at most 8 files, has gpu_check.json and .md after every check and every time;
logs and dumps are in rest.tar.gz. Without a GPU each step says so and is tried as far as
it goes.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import re
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import jax

from pallas_kernels import tune
from pallas_kernels.bench import contact, diagnosis, measure, report
from pallas_kernels.bench.environment import ROOT
from pallas_kernels.bench.run import NOT_AVAILABLE, Options, Run
from pallas_kernels.bench.selection import NothingMatches
from pallas_kernels.bench.workers import Worker, call_skipping

# The interpreter of kernels has a thread for each warpgroup, of which one may wait for
# another; the client that runs them has as many as this says.
EMULATING = {'NPROC': '16'}
FINISH = 6  # seconds, to stop what runs and to pack
DRY_SECONDS = 25  # of a step
GRACE = 15  # between a command's own end and its being stopped


@dataclasses.dataclass(frozen=True)
class Step:
  """Attributes:
  act: what it does, until a time.monotonic().
  most: seconds that it gets at most.
  least: seconds without which it does not start.
  timed: whether it runs kernels that must have been checked.
  """

  act: Callable[[Run, float], None]
  most: float
  least: float
  timed: bool = True


def ceilings(run: Run, end: float) -> None:
  """What the device can do at best, by kernels without copies or without products."""
  start = time.monotonic()
  if missing := missing_module('ceilings'):
    run.step('ceilings', f'{NOT_AVAILABLE}: no module {missing}')
    return
  given = {'repetitions': run.options.repetitions, 'timer': run.record['timer']}
  measuring = f'{report.CEILINGS}:measure'
  reply, _ = call_skipping(run.worker, measuring, measure.COMPILE_SECONDS, end, **given)
  run.record['ceilings'] = reply.get('result', reply)
  if 'result' in reply:
    reply = run.worker.call(f'{report.CEILINGS}:render', 20, end, record=reply['result'])
    run.record['ceilings_table'] = reply.get('result', '')
  verdict = 'passed' if 'result' in reply else f'failed: {reply["failed"]}'
  run.step('ceilings', verdict, start)


def train_steps(run: Run, end: float) -> None:
  _command(run, 'train_steps', end)


def proxy(run: Run, end: float) -> None:
  _command(run, 'proxy', end)


COMMANDS = {  # the module, and its options on a GPU
  'train_steps': ['benchmarks.gpu_steps', '--sizes=350m,60m,130m,1b'],
  'proxy': ['benchmarks.gpu_proxy'],
}
MODULES = {'ceilings': report.CEILINGS}
STEPS = {
  # About a minute; without all of it nothing is timed, so a slow one may take more.
  'contact': Step(contact.step, 240, 20, timed=False),
  'ceilings': Step(ceilings, 60, 15, timed=False),
  'headline': Step(measure.headline, 200, 30),
  'layers': Step(measure.layers, 120, 20),
  'train_steps': Step(train_steps, 180, 45),
  'proxy': Step(proxy, 300, 60),
  'tune': Step(tune.step, 170, 30),
  'kernels': Step(measure.kernels, 300, 20),
}
DEVICE = 'device'  # is always first
CALLS = {  # minutes, steps
  1: (5.8, ['contact', 'ceilings', 'headline']),
  2: (4.8, ['layers', 'train_steps', 'proxy']),
  3: (3.8, ['tune', 'kernels']),
}
MINUTES = 8.7  # of steps that are chosen one by one
DIAGNOSIS = Step(diagnosis.step, 120, 10, timed=False)


def _command(run: Run, name: str, end: float) -> None:
  """A step that is a module of its own, of training; nothing here imports it."""
  if missing := missing_module(name):
    run.step(name, f'{NOT_AVAILABLE}: no module {missing}')
    return
  run.worker.close()  # it keeps memory that training needs
  seconds = end - time.monotonic() - GRACE
  words = [*COMMANDS[name], f'--out={run.out}', f'--seconds={seconds:.0f}']
  run.command(name, [*words, f'--log={run.rest / name}_workers.log'], end)


def execute(run: Run, steps: list[str], checks: pathlib.Path | None) -> int:
  """All steps. Returns the exit status: 1 if one of them failed."""
  with run:
    unavailable = device(run, checks)
    if unavailable is None:
      return 1
    if unavailable:
      run.worker.close()
      run.worker = Worker(run.log, EMULATING)
      for name in steps:
        dry_step(run, name, unavailable)
    else:
      on_device(run, steps)
    print(report.render(run.record))
  verdicts = [step['verdict'] for step in run.record['steps'].values()]
  return int(any(verdict.startswith(('failed', 'stopped')) for verdict in verdicts))


def device(run: Run, checks: pathlib.Path | None) -> str | None:
  """Records the device and its peaks.

  Returns:
    Why kernels cannot run there, or ''; None if that could not be found out.
  """
  start = time.monotonic()
  reply = run.worker.call(f'{measure.TASKS}:device', 90, run.end)
  if 'result' not in reply:
    run.step(DEVICE, f'failed: {reply["failed"]}', start)
    return None
  found = reply['result']
  unavailable = found.pop('unavailable')
  run.record |= found | {'driver': report.driver()}
  if unavailable:
    run.step(DEVICE, f'{NOT_AVAILABLE}: {unavailable}', start)
    print(report.about(run.record), flush=True)
    return unavailable
  known = contact.known(checks, run.record) if checks else {}
  run.record['checks'] = known.get('checks', {})
  measure.prepare(run, known.get('timer'))
  run.step(DEVICE, found['device'], start)
  print(report.about(run.record), flush=True)
  return ''


def on_device(run: Run, steps: list[str]) -> None:
  """The steps in their order; contact goes first where another needs it."""
  if any(STEPS[name].timed for name in steps) and contact.unchecked(run.record):
    steps = ['contact', *(name for name in steps if name != 'contact')]
  for name in steps:
    if STEPS[name].timed and (why := untimed(run.record)):
      run.step(name, f'not run: {why}')
      continue
    begin(run, name, STEPS[name])
    if name == 'contact' and contact.wrong(run.record):
      begin(run, 'diagnosis', DIAGNOSIS)
    run.pack()


def untimed(record: dict[str, Any]) -> str:
  """Why nothing may be timed, or ''."""
  if wrong := contact.wrong(record):
    return f'{len(wrong)} of {len(record["checks"])} checks did not pass'
  missing = contact.unchecked(record)
  return f'{len(missing)} checks were not made' if missing else ''


def begin(run: Run, name: str, step: Step) -> None:
  now, last = time.monotonic(), run.end - FINISH
  if last - now < step.least:
    run.step(name, 'not run: no time was left')
    return
  try:
    step.act(run, min(now + step.most, last))
  except NothingMatches as error:
    run.step(name, f'failed: {error}', now)


def dry_step(run: Run, name: str, why: str) -> None:
  """Tries what of a step needs no GPU."""
  run.step(name, f'{NOT_AVAILABLE}: {why}')
  begun = time.monotonic()
  label, seconds = f'{name}, dry run', min(DRY_SECONDS, run.end - FINISH - begun)
  if missing := missing_module(name):
    run.step(label, f'{NOT_AVAILABLE}: no module {missing}')
  elif name in COMMANDS:
    few = ['--sizes=60m'] if name == 'train_steps' else []
    # All the time there is: a slow machine's dry run has not failed.
    words = [COMMANDS[name][0], *few, f'--out={run.out}', '--dry_run']
    words += [f'--seconds={max(run.end - FINISH - begun, 1):.0f}']
    run.command(label, words, run.end - FINISH)
  else:
    given = {'until': time.time() + seconds, 'tokens': run.options.tokens}
    given |= {'only': run.options.only}
    reply = run.worker.call(f'pallas_kernels.bench.dry:{name}', 60, run.end, **given)
    print(''.join(f'  {line}\n' for line in reply.get('result', [])), end='')
    verdict = 'passed'
    if 'failed' in reply:
      verdict = f'failed: {reply["failed"]} (at {reply["during"]})'
    run.step(label, verdict, begun)


def missing_module(name: str) -> str:
  """What a step needs besides this folder, if it is not there; or ''."""
  module = COMMANDS[name][0] if name in COMMANDS else MODULES.get(name)
  there = module is None or (ROOT / f'{module.replace(".", "/")}.py').exists()
  return '' if there else module


def main(arguments: list[str] | None = None) -> int:
  args = parse(arguments)
  # This process only waits: a GPU's memory is for those that it starts.
  jax.config.update('jax_platforms', 'cpu')
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # stop what was started
  options = Options(only=args.only, repetitions=args.repetitions, wheels=args.wheels)
  run = Run(args.out, seconds=60 * args.minutes, options=options)
  return execute(run, args.steps, args.checks)


def parse(arguments: list[str] | None) -> argparse.Namespace:
  """The options, each checked; minutes and steps are those of the call if there is one."""
  parser = argparse.ArgumentParser(
    'python -m pallas_kernels.gpu_check', description=__doc__, allow_abbrev=False
  )
  parser.formatter_class = argparse.RawDescriptionHelpFormatter
  what = parser.add_mutually_exclusive_group(required=True)
  what.add_argument('--call', type=int, choices=list(CALLS), help='the steps of a call')
  what.add_argument('--steps', type=_steps, help=f'of {",".join([DEVICE, *STEPS])}')
  add = parser.add_argument
  add('--out', type=_out, default='runs/gpu_check', help='results (runs/gpu_check)')
  add(
    '--minutes', type=_positive(float), help='how long it may take; each call has its own'
  )
  add('--checks', type=_checks, help='gpu_check.json of an earlier call on this device')
  add('--only', type=_pattern, help='of what the steps measure, what matches this instead')
  add('--repetitions', type=_positive(int), default=7, help='turns of every peer (7)')
  add('--wheels', type=_wheels, help='a folder of packages that training needs besides')
  args = parser.parse_args(arguments)
  try:  # once all the rest is right
    args.out.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    parser.error(f'argument --out: {args.out}: cannot be made: {error.strerror}')
  if not os.access(args.out, os.W_OK):
    parser.error(f'argument --out: {args.out}: cannot be written to')
  minutes, steps = CALLS.get(args.call, (MINUTES, args.steps))
  args.minutes, args.steps = args.minutes or minutes, steps
  return args


def _steps(text: str) -> list[str]:
  chosen = text.split(',')
  if wrong := [name for name in chosen if name != DEVICE and name not in STEPS]:
    accepted = ', '.join([DEVICE, *STEPS])
    raise argparse.ArgumentTypeError(f'{wrong[0]!r}: must be among {accepted}')
  return [name for name in dict.fromkeys(chosen) if name != DEVICE]


def _out(text: str) -> pathlib.Path:
  path = pathlib.Path(text).expanduser().resolve()
  if path.exists() and (not path.is_dir() or any(path.iterdir())):
    raise argparse.ArgumentTypeError(f'{text}: must be a new or an empty folder')
  return path


def _positive(kind: type) -> Callable[[str], Any]:
  def parse_number(text: str) -> Any:
    try:
      value = kind(text)
    except ValueError:
      value = 0
    if not 0 < value < 1e6:
      raise argparse.ArgumentTypeError(f'{text}: must be a number above 0')
    return value

  return parse_number


def _checks(text: str) -> pathlib.Path:
  path = pathlib.Path(text)
  try:
    found = json.loads(path.read_text())
  except (OSError, ValueError) as error:
    raise argparse.ArgumentTypeError(f'{text}: cannot be read: {error}') from error
  if contact.is_record(found):
    return path
  raise argparse.ArgumentTypeError(f'{text}: must be a gpu_check.json')


def _pattern(text: str) -> str:
  try:
    re.compile(text)
  except re.error as error:
    raise argparse.ArgumentTypeError(f'{text}: no regular expression: {error}') from error
  return text


def _wheels(text: str) -> pathlib.Path:
  path = pathlib.Path(text)
  if not any(path.glob('*.whl')):
    raise argparse.ArgumentTypeError(f'{text}: must be a folder with .whl files')
  return path.resolve()


if __name__ == '__main__':
  sys.exit(main())
