"""What the worker of the benchmark does: checks all peers of a case, then times them."""

import dataclasses
import functools
import importlib.metadata
import os
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import jax

from pallas_kernels.bench import checks, layers, timing
from pallas_kernels.bench.candidates import candidates, key_of
from pallas_kernels.bench.peers import (
  JAX_HOPPER,
  OURS,
  PRUNED_XLA,
  Peer,
  cases,
  peers,
  references,
)
from pallas_kernels.bench.programs import (
  compile_all,
  compiled,
  differing_runs,
  run_poisoned,
)
from pallas_kernels.bench.workers import REPEAT_SECONDS, RUN_SECONDS, fatal, note, reason
from pallas_kernels.two_four import dispatch
from pallas_kernels.two_four.cases import Case

TIMED_SEED = 1
CLUSTERS = (1, 2)  # timed at the default tile, whichever of them is the default
REPEATED = 3  # runs that must agree bit by bit


def unavailable() -> str:
  """Why the kernels cannot run here, or ''."""
  try:
    dispatch.pick('mosaic')
  except NotImplementedError as error:
    return str(error)
  return ''


def device() -> dict[str, Any]:
  """The device and what is installed for it, and why it cannot run the kernels, if so."""
  found = jax.devices()[0]
  return {
    'device': found.device_kind,
    'platform': found.platform,
    'multiprocessors': getattr(found, 'core_count', None),
    'memory_bytes': (found.memory_stats() or {}).get('bytes_limit'),
    'cpus': os.cpu_count(),
    'host_memory_bytes': os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE'),
    'cuda_path': jax._src.lib.cuda_path,
    'ptxas': _ptxas(),
    'versions': {name: _version(name) for name in ('jax', 'jaxlib', 'jax-cuda13-plugin')},
    'unavailable': unavailable(),
  }


def _ptxas() -> str | None:
  """Which one is first on the path, and its version; None without one."""
  if (path := shutil.which('ptxas')) is None:
    return None
  said = subprocess.run([path, '--version'], capture_output=True, text=True, timeout=30)
  lines = (said.stdout or said.stderr).strip().splitlines() or ['says nothing']
  return f'{path}: {lines[-1]}'


def _version(package: str) -> str | None:
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return None


def probe_timer() -> str:
  return timing.probe_cupti()


def peaks(repetitions: int, timer: str) -> dict[str, Any]:
  return timing.measure_peaks(repetitions, timer)


def time_case(
  name: str,
  tokens: int,
  repetitions: int,
  timer: str,
  seed: int,
  skip: list[str],
  tiles: bool = False,
) -> dict[str, Any]:
  """Peer -> its check, and its time if it passed, or why there is none.

  Args:
    skip: names of peers that are left out.
    tiles: our kernel with every candidate's tiles in place of its default ones; the
      fastest becomes the peer 'ours'.
  """
  case = cases(tokens)[name]
  every = with_tiles(case, peers(case)) if tiles else peers(case)
  chosen = [peer for peer in every if peer.name not in skip]
  inputs, functions = checks.case_inputs(case, seed), references(case)
  expected = {}
  for like in {peer.like for peer in chosen} - {''}:
    note(f'reference {like}')
    expected[like] = jax.block_until_ready(checks.strict(functions[like])(*inputs))
  result, programs = {}, _compile_tiles(chosen, inputs) if tiles else {}
  for peer in chosen:
    bits = case.op in checks.PRUNING and peer.like != 'dense'
    function = programs.get(peer.name, peer.function)
    check = functools.partial(_check, peer.name, function, peer.prepare(*inputs))
    result[peer.name], programs[peer.name] = _attempt(
      peer.name, check, expected.get(peer.like), bits, peer.like
    )
  del inputs, expected
  note('inputs')
  sets = [checks.case_inputs(case, TIMED_SEED, exact=False)]
  for number in range(1, timing.sets_needed(sets[0])):
    sets.append(checks.case_inputs(case, TIMED_SEED + number, exact=False))
  calls = {
    peer.name: timing.Timed(
      programs[peer.name], [peer.prepare(*x) for x in sets], peer.function
    )
    for peer in chosen
    if 'failed' not in result[peer.name]
  }
  _keep_fastest(calls, result)
  _time(calls, result, repetitions, timer)
  if tiles:
    _name_fastest(result)
  return {'sets': len(sets), 'peers': result}


def with_tiles(case: Case, every: list[Peer]) -> list[Peer]:
  """The peers, and in place of ours one for each candidate, the default by CLUSTERS."""
  ours, tokens = next(peer for peer in every if peer.name == OURS), case.shape['M']
  default, *others = candidates(key_of(case.name, case.op, tokens), tokens)
  made = {f'{OURS}, cluster={x}': {**default, 'cluster': x} for x in CLUSTERS}
  for config in others:
    if config not in made.values():
      changed = {k: v for k, v in config.items() if v != default[k]}
      made[f'{OURS}, {" ".join(f"{k}={v}" for k, v in changed.items())}'] = config
  # XLA's own pruned product is a reference of the check, and far from the others.
  rest = [peer for peer in every if peer.name not in (OURS, PRUNED_XLA)]
  return rest + [
    dataclasses.replace(ours, name=name, function=_under(config, ours.function))
    for name, config in made.items()
  ]


def _under(fields: dict[str, Any], function: Callable) -> Callable:
  def configured_function(*args):
    with dispatch.configured(fields):
      return function(*args)

  return configured_function


def _name_fastest(result: dict[str, Any]) -> None:
  """The peer 'ours' is the fastest tile; all of them keep their rows."""
  tiles = {k: x for k, x in result.items() if k.startswith(f'{OURS}, ') and 'us' in x}
  if not tiles:
    return
  best = min(tiles, key=lambda name: tiles[name]['us']['median'])
  result[OURS] = result[best] | {'tile': best.removeprefix(f'{OURS}, ')}


def _compile_tiles(chosen: list[Peer], inputs: tuple) -> dict[str, Any]:
  """The programs of our kernel's tiles, several at a time, or the error of one."""
  ours = [peer for peer in chosen if peer.name.startswith(OURS)]
  note('tiles')
  programs = compile_all([(peer.function, peer.prepare(*inputs)) for peer in ours])
  return {peer.name: program for peer, program in zip(ours, programs)}


def _check(
  name: str, function: Any, args: tuple, expected: Any, bits: bool, like: str
) -> tuple[dict[str, Any], Any]:
  """The verdict, and the program that was checked; like what it must be, '' for nothing.

  Args:
    function: to compile; or its program, or the error that it met.
  """
  if isinstance(function, Exception):
    raise function
  if isinstance(function, jax.stages.Compiled):
    note(name, RUN_SECONDS)
    program = function
  else:
    program = compiled(function, args, name)
  out = run_poisoned(program, args)
  note(name)
  if not like:
    return {'check': 'none, it is a reference'}, program
  comparison = checks.compare(out, expected, bits)
  del out
  note(name, REPEAT_SECONDS)
  if name.startswith(OURS) and (differing := differing_runs(program, args, REPEATED)):
    comparison |= {'passed': False, 'differing_runs': differing}
  return _verdict(comparison), program


def _verdict(comparison: dict[str, Any]) -> dict[str, Any]:
  passed = comparison.pop('passed')
  verdict = {'check': 'passed' if passed else 'failed', **comparison}
  return verdict if passed else verdict | {'failed': 'its result is wrong'}


def _attempt(name: str, check: Callable, *args: Any) -> tuple[dict[str, Any], Any]:
  """What the check returns, or {'failed': why}; an error that stays ends the process."""
  note(name)
  try:
    return check(*args)
  except Exception as error:
    if fatal(error):
      raise
    return {'failed': reason(error)}, None


def _keep_fastest(calls: timing.Calls, result: dict[str, Any]) -> None:
  """Of JAX's own kernel the tile that is fastest here, under the kernel's name."""
  tiles = {name: call for name, call in calls.items() if name.startswith(JAX_HOPPER)}
  if not tiles:
    return
  note(JAX_HOPPER)
  times = timing.in_turns(tiles, 2, 'wall')
  best = min(tiles, key=lambda name: times[name]['wall_us']['median'])
  tile = best.removeprefix(f'{JAX_HOPPER}, ')
  swept = {name.removeprefix(f'{JAX_HOPPER}, '): times[name]['wall_us'] for name in tiles}
  result[JAX_HOPPER] = result[best] | {'tile': tile, 'swept_wall_us': swept}
  calls[JAX_HOPPER] = calls[best]
  for name in tiles:
    del calls[name], result[name]


def _time(
  calls: timing.Calls, result: dict[str, Any], repetitions: int, timer: str
) -> None:
  note('timing')
  for name, times in timing.in_turns(calls, repetitions, timer).items():
    result[name] |= times


def time_layer(
  name: str, tokens: int, repetitions: int, timer: str, seed: int, skip: list[str]
) -> dict[str, Any]:
  """As `time_case` for a layer; with the memory of each peer."""
  layer = layers.all_layers(tokens)[name]
  make = jax.jit(lambda seed, exact: layer.inputs(exact, seed), static_argnums=1)
  functions = layer.functions()
  chosen = [peer for peer in layer.floors() if peer not in skip]
  inputs, result, programs, expected = make(seed, True), {}, {}, {}
  for peer in chosen:
    like = layers.LIKE.get(peer, '')
    if like and like not in expected:
      note(f'reference {like}')
      strict = checks.strict(functions[like])
      expected = {like: jax.block_until_ready(strict(*inputs))}
    check = functools.partial(_check, peer, functions[peer], inputs)
    result[peer], programs[peer] = _attempt(peer, check, expected.get(like), False, like)
  del inputs, expected
  note('inputs')
  sets = [make(TIMED_SEED, False)]
  for number in range(1, timing.sets_needed(sets[0])):
    sets.append(make(TIMED_SEED + number, False))
  calls = {}
  for peer in chosen:
    if 'failed' not in result[peer]:
      note(peer)
      result[peer] |= timing.memory(programs[peer], sets[0]) | layer.saved(peer)
      calls[peer] = timing.Timed(programs[peer], sets, functions[peer])
  _time(calls, result, repetitions, timer)
  return {'sets': len(sets), 'peers': result}
