"""What the worker of the benchmark does: checks all peers of a case, then times them."""

import functools
import importlib.metadata
import os
from collections.abc import Callable
from typing import Any

import jax

from pallas_kernels.bench import checks, layers, timing
from pallas_kernels.bench.peers import JAX_HOPPER, Peer, cases, peers, references
from pallas_kernels.bench.workers import fatal, note, reason
from pallas_kernels.two_four import dispatch

TIMED_SEED = 1


def unavailable() -> str:
  """Why the kernels cannot run here, or ''."""
  try:
    dispatch.pick('mosaic')
  except NotImplementedError as error:
    return str(error)
  return ''


def device() -> dict[str, Any]:
  """The device, and why it cannot run the kernels, if so."""
  found = jax.devices()[0]
  return {
    'device': found.device_kind,
    'platform': found.platform,
    'multiprocessors': getattr(found, 'core_count', None),
    'memory_bytes': (found.memory_stats() or {}).get('bytes_limit'),
    'cpus': os.cpu_count(),
    'versions': {name: _version(name) for name in ('jax', 'jaxlib', 'jax-cuda13-plugin')},
    'unavailable': unavailable(),
  }


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
  name: str, tokens: int, repetitions: int, timer: str, seed: int, skip: list[str]
) -> dict[str, Any]:
  """Peer -> its check, and its time if it passed, or why there is none.

  Args:
    skip: names of peers that are left out.
  """
  case = cases(tokens)[name]
  chosen = [peer for peer in peers(case) if peer.name not in skip]
  inputs, functions = checks.case_inputs(case, seed), references(case)
  expected = {}
  for like in {peer.like for peer in chosen} - {''}:
    note(f'reference {like}')
    expected[like] = jax.block_until_ready(checks.strict(functions[like])(*inputs))
  result, jitted = {}, {peer.name: jax.jit(peer.function) for peer in chosen}
  for peer in chosen:
    bits = case.op in checks.PRUNING and peer.like != 'dense'
    check = functools.partial(_check, peer, jitted[peer.name], inputs)
    result[peer.name] = _attempt(peer.name, check, expected.get(peer.like), bits)
  del inputs, expected
  sets = [checks.case_inputs(case, TIMED_SEED, exact=False)]
  for number in range(1, timing.sets_needed(sets[0])):
    sets.append(checks.case_inputs(case, TIMED_SEED + number, exact=False))
  calls = {
    peer.name: timing.rotating(jitted[peer.name], [peer.prepare(*x) for x in sets])
    for peer in chosen
    if 'failed' not in result[peer.name]
  }
  _keep_fastest(calls, result)
  _time(calls, result, repetitions, timer)
  return {'sets': len(sets), 'peers': result}


def _check(
  peer: Peer, function: Callable, inputs: tuple, expected: Any, bits: bool
) -> dict[str, Any]:
  out = checks.run_poisoned(function, peer.prepare(*inputs))
  if not peer.like:
    return {'check': 'none, it is a reference'}
  return _verdict(checks.compare(out, expected, bits))


def _verdict(comparison: dict[str, Any]) -> dict[str, Any]:
  passed = comparison.pop('passed')
  verdict = {'check': 'passed' if passed else 'failed', **comparison}
  return verdict if passed else verdict | {'failed': 'its result is wrong'}


def _attempt(name: str, check: Callable, *args: Any) -> dict[str, Any]:
  """What the check returns, or {'failed': why}; an error that stays ends the process."""
  note(name)
  try:
    return check(*args)
  except Exception as error:
    if fatal(error):
      raise
    return {'failed': reason(error)}


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
  layer, training = layers.all_layers(tokens)[name]
  make = jax.jit(
    lambda seed, exact: layers.inputs(layer, training, exact, seed), static_argnums=1
  )
  functions = layers.functions(layer, training)
  chosen = [peer for peer in layers.floors(layer, training) if peer not in skip]
  jitted = {peer: jax.jit(functions[peer]) for peer in chosen}
  inputs, result, expected = make(seed, True), {}, {}
  for peer in chosen:
    like = layers.LIKE.get(peer)
    if like and like not in expected:
      note(f'reference {like}')
      strict = checks.strict(functions[like])
      expected = {like: jax.block_until_ready(strict(*inputs))}
    result[peer] = _attempt(peer, _check_layer, jitted[peer], inputs, expected.get(like))
  del inputs, expected
  sets = [make(TIMED_SEED, False)]
  for number in range(1, timing.sets_needed(sets[0])):
    sets.append(make(TIMED_SEED + number, False))
  calls = {}
  for peer in chosen:
    if 'failed' not in result[peer]:
      note(peer)
      result[peer] |= timing.memory(jitted[peer], sets[0])
      calls[peer] = timing.rotating(jitted[peer], sets)
  _time(calls, result, repetitions, timer)
  return {'sets': len(sets), 'peers': result}


def _check_layer(function: Callable, inputs: tuple, expected: Any) -> dict[str, Any]:
  out = checks.run_poisoned(function, inputs)
  if expected is None:
    return {'check': 'none, it is a reference'}
  return _verdict(checks.compare(out, expected, bits=False))
