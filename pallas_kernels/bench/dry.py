"""What of each step can be tried without a GPU, in a worker; nothing is measured.

Each function returns lines for the log. It ends when `until`, of time.time(), has come, and
says how much it did. No error is caught: it fails the step.
"""

import importlib
import json
import time
from collections.abc import Callable

import jax

from pallas_kernels.bench import checks, report, selection
from pallas_kernels.bench.candidates import candidates, group_of
from pallas_kernels.bench.layers import all_layers
from pallas_kernels.bench.one_hot import check_one_hot
from pallas_kernels.bench.peers import OURS, Peer, cases, peers
from pallas_kernels.bench.tasks import with_tiles
from pallas_kernels.bench.workers import note
from pallas_kernels.roofline import Machine, Op
from pallas_kernels.two_four.cases import Case, small
from pallas_kernels.two_four.dispatch import H200, building_for, emulated

ONE_HOT = (128, 256, 64)
EMULATED = 'gated_backward-T128-N128-F256-transpose_w=False'


def contact(until: float, tokens: int, only: str | None) -> list[str]:
  """A one-hot product and another small case, the kernels interpreted."""
  case = next(case for case in small() if case.name == EMULATED)
  return _all(
    until,
    {
      'one-hot, emulated': lambda: _right(check_one_hot(1, False, {}, shape=ONE_HOT)),
      f'{EMULATED}, emulated': lambda: _right(checks.check_case(case, seed=0, runs=0)),
    },
    emulated,
  )


def _right(verdict: dict) -> str:
  if not verdict['passed']:
    raise ValueError(f'wrong: {json.dumps(verdict)[:300]}')
  return 'right'


def ceilings(until: float, tokens: int, only: str | None) -> list[str]:
  module = importlib.import_module(report.CEILINGS)
  return _all(until, {'emulated': lambda: '; '.join(module.dry_run())})


def headline(until: float, tokens: int, only: str | None) -> list[str]:
  """Lowers every tile."""
  [(_, name)] = selection.headline(tokens)
  case = cases(tokens)[name]
  with building_for(H200):
    every = with_tiles(case, peers(case))
  return _all(until, {peer.name: lambda p=peer: _build(p, case) for peer in every})


def layers(until: float, tokens: int, only: str | None) -> list[str]:
  items = selection.layer_items(tokens, only)
  return _all(until, {name: lambda n=name: _build_layer(n, tokens) for _, name in items})


def kernels(until: float, tokens: int, only: str | None) -> list[str]:
  items = selection.kernel_items(tokens, only)
  return _all(until, {name: lambda n=name: _build_case(n, tokens) for _, name in items})


def tune(until: float, tokens: int, only: str | None) -> list[str]:
  """Lists the candidates."""
  keys = selection.keys(tokens, only)
  return _all(until, {key: lambda k=key: _list(k, tokens) for key in keys})


def _all(
  until: float, parts: dict[str, Callable[[], str]], context: Callable | None = None
) -> list[str]:
  lines = []
  for name, part in parts.items():
    if time.time() >= until:
      lines.append(f'{len(lines)} of {len(parts)}, then the time was over')
      break
    note(name)
    with context() if context else building_for(H200):
      lines.append(f'{name}: {part()}')
  return lines


def _lower(name: str, function: Callable, inputs: tuple) -> None:
  traced = jax.jit(function).trace(*inputs)
  if name.startswith(OURS):
    traced.lower(lowering_platforms=('cuda',))


def _build(peer: Peer, case: Case) -> str:
  _lower(peer.name, peer.function, jax.eval_shape(peer.prepare, *case.abstract_inputs()))
  return 'lowered' if peer.name.startswith(OURS) else 'traced'


def _build_case(name: str, tokens: int) -> str:
  case = cases(tokens)[name]
  for peer in peers(case):
    _build(peer, case)
  return _floors('', name, tokens)


def _build_layer(name: str, tokens: int) -> str:
  layer = all_layers(tokens)[name]
  inputs, functions = jax.eval_shape(lambda: layer.inputs(True, 0)), layer.functions()
  for peer in layer.floors():
    _lower(peer, functions[peer], inputs)
  saved = {peer: layer.saved(peer).get('saved_bytes') for peer in layer.floors()}
  more = ', '.join(f'{k} {v / 1e6:.0f} MB' for k, v in saved.items() if v is not None)
  return _floors('layer', name, tokens) + (f'; saved: {more}' if more else '')


def _floors(op: str, name: str, tokens: int) -> str:
  machine, made = Machine(), selection.floors(op, name, tokens)[0]
  text = lambda ops: f'{machine.floor(ops):.1f}'
  ops: dict[str, list[Op]] = made
  return 'floors in us: ' + ', '.join(f'{peer} {text(x)}' for peer, x in ops.items())


def _list(key: str, tokens: int) -> str:
  words = [' '.join(f'{k}={v}' for k, v in x.items()) for x in candidates(key, tokens)]
  return f'for {len(group_of(key, tokens))} cases: ' + '; '.join(words)
