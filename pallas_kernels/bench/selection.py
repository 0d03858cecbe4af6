"""What each step measures, in which order, with which floors."""

import re

from pallas_kernels.bench import layers, torch_peers
from pallas_kernels.bench.candidates import OPS, groups
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

Item = tuple[str, str]  # op and name; op 'layer' for a whole feed-forward


class NothingMatches(ValueError):
  """Of what is asked for by name there is nothing."""


SIZE_ORDER = ('350m', '1b', '130m', '60m', '7b')


def headline(tokens: int) -> list[Item]:
  """The sparse product that is compared with what others have published."""
  return [('matmul', f'matmul-M{tokens}-K8192-N2048-axis=1-transpose_b=False')]


def layer_items(tokens: int, only: str | None) -> list[Item]:
  """The low-rank layers from small to large, or of all layers those that match."""
  found = layers.all_layers(tokens).values()
  chosen = [('layer', x.name) for x in found if _chosen(x.name, only, x.usual)]
  return _some(chosen, only)


def kernel_items(tokens: int, only: str | None) -> list[Item]:
  """All cases, or those that match; those of the models that fit one GPU come first."""
  found = [
    (_order(case), (case.op, name))
    for name, case in cases(tokens).items()
    if _chosen(name, only, True)
  ]
  return _some([item for _, item in sorted(found)], only)


def keys(tokens: int, only: str | None) -> list[str]:
  """What to tune, in the order of its cases; those that 350m has first."""
  found = []
  for op in OPS:
    for key, names in groups(op, tokens).items():
      if _chosen(key, only, True):
        found.append((min(_order(cases(tokens)[name]) for name in names), key))
  return _some([key for _, key in sorted(found)], only)


def _chosen(name: str, only: str | None, usual: bool) -> bool:
  return usual if only is None else re.search(only, name) is not None


def _some(found: list, only: str | None) -> list:
  if not found:
    raise NothingMatches(f'--only={only} matches nothing of what it could measure')
  return found


def _order(case: Case) -> tuple:
  # Of several layouts and rules the usual one first.
  options = case.options
  usual = True
  if case.op == 'matmul':
    usual = straight(case)
  elif case.op == 'compress':
    usual = (options['axis'], options['rule']) == (1, 'top2')
  rank = min(SIZE_ORDER.index(size) for size in sizes_of_case(case))
  return not usual, rank, OPS.index(case.op), case.name


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


def floors(op: str, name: str, tokens: int) -> tuple[dict[str, list[Op]], float]:
  """Peer -> the operations of its floor, and the FLOPs of the dense operation."""
  if op == 'layer':
    layer = layers.all_layers(tokens)[name]
    return layer.floors(), layer.flops
  case = cases(tokens)[name]
  made = {peer.name: peer.floor for peer in peers(case)}
  if op == 'matmul':
    made = {k: v for k, v in made.items() if not k.startswith(JAX_HOPPER)}
    if straight(case):
      made[JAX_HOPPER] = made[torch_peers.DENSE] = made[DENSE_XLA]
      made[torch_peers.SPARSE] = made[torch_peers.BEST] = made[OURS]
  return made, flops(case)


def floor_of(peer: str, made: dict[str, list[Op]]) -> list[Op]:
  """That of a tile of ours is that of ours."""
  return made.get(peer) or (made[OURS] if peer.startswith(f'{OURS}, ') else [])
