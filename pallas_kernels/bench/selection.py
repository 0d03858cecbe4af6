"""What is measured, in which order, with which floors: shared by bench and tune."""

import argparse
from collections.abc import Callable
from typing import Any

from pallas_kernels.bench import layers, torch_peers
from pallas_kernels.bench.peers import (
  DENSE_XLA,
  JAX_HOPPER,
  OURS,
  cases,
  flops,
  peers,
  straight,
)
from pallas_kernels.roofline import SIZES, Op
from pallas_kernels.two_four.cases import FULL_RANK, Case, whole

OPS = (
  'matmul', 'layer', 'up_compress', 'gated_backward', 'weight_gradient', 'feed_forward',
  'compress',
)  # fmt: skip
TASKS, TORCH = 'pallas_kernels.bench.tasks', 'pallas_kernels.bench.torch_peers'
FIRST = ('matmul-M{T}-K8192-N2048', '350m low rank', '1b low rank')  # in a short run


def sizes_of(F: int, K: int) -> set[str]:
  """The models that have an F-wide product with inner width K."""
  return {size for size, (_, f, r) in SIZES.items() if (whole(f), r) == (F, K)} | {
    size for size, (d, f) in FULL_RANK.items() if (f, d) == (F, K)
  }


def sizes_of_case(case: Case) -> set[str]:
  """Of compress, which has no inner width: any model with these features."""
  shape = case.shape
  F = shape['K' if case.op == 'matmul' else 'F']
  inner = {'matmul': 'N', 'up_compress': 'K', 'compress': ''}.get(case.op, 'N')
  widths = [shape[inner]] if inner else [w for x in SIZES.values() for w in x]
  return set().union(*(sizes_of(F, width) for width in widths))


def items(ops: list[str], sizes: list[str], tokens: int) -> list[tuple[str, str]]:
  """(op, name) of all that is asked for, the most important first."""
  found = [
    (case.op, name)
    for name, case in cases(tokens).items()
    if case.op in ops and sizes_of_case(case) & set(sizes)
  ]
  found += [
    ('layer', name)
    for name, (layer, _) in layers.all_layers(tokens).items()
    if 'layer' in ops and layer.size in sizes
  ]
  return sorted(found, key=lambda item: _order(item, tokens))


def _order(item: tuple[str, str], tokens: int) -> tuple:
  op, name = item
  first = [name.startswith(x.format(T=tokens)) for x in FIRST]
  case = cases(tokens).get(name)
  # Of several layouts and rules the usual one; then the larger models of one GPU.
  usual = case is None or (
    straight(case)
    if op == 'matmul'
    else op != 'compress' or (case.options['axis'], case.options['rule']) == (1, 'top2')
  )
  sizes = sizes_of_case(case) if case else {name.split()[0]}
  rank = min(('1b', '350m', '130m', '60m', '7b').index(size) for size in sizes)
  place = first.index(True) if usual and any(first) else len(first)
  return place, not usual, rank, OPS.index(op), name


def floors(op: str, name: str, tokens: int) -> tuple[dict[str, list[Op]], float]:
  """Peer -> the operations of its floor, and the FLOPs of the dense operation."""
  if op == 'layer':
    layer, training = layers.all_layers(tokens)[name]
    return layers.floors(layer, training), layers.flops(layer, training)
  case = cases(tokens)[name]
  made = {peer.name: peer.floor for peer in peers(case)}
  if op == 'matmul':
    made = {k: v for k, v in made.items() if not k.startswith(JAX_HOPPER)}
    if straight(case):
      made[JAX_HOPPER] = made[torch_peers.DENSE] = made[DENSE_XLA]
      made[torch_peers.SPARSE] = made[torch_peers.BEST] = made[OURS]
  return made, flops(case)


def _list(choices: Any) -> Callable[[str], list[str]]:
  def parse(text: str) -> list[str]:
    chosen = text.split(',')
    wrong = [x for x in chosen if x not in choices]
    if wrong:
      accepted = ', '.join(choices)
      raise argparse.ArgumentTypeError(f'{wrong[0]!r}: must be among {accepted}')
    return chosen

  return parse


def add_selection(parser: argparse.ArgumentParser, ops: tuple[str, ...]) -> None:
  """The options that say what, which bench and tune share."""
  parser.formatter_class = argparse.RawDescriptionHelpFormatter
  add = parser.add_argument
  add('--ops', type=_list(ops), default=list(ops), help=','.join(ops))
  add('--sizes', type=_list(SIZES), default=list(SIZES), help=','.join(SIZES))
  add('--tokens', type=int, default=16384, help='T (16384)')
  add('--seconds', type=float, default=1e9, help='stop after so many')
  add('--dry_run', action='store_true', help='measure nothing; works anywhere')
