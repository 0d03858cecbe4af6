"""Activations in a feed-forward, at equal parameters and at two widths.

  python -m experiments.run activation_table --scale=proxy --workers=2

Decoders of D 32 and D 64 that differ in the feed-forward alone, by AdamW. Ungated ones have
F about 4 D, gated ones (swiglu, reglu, and their peers) two thirds of it, so that all have
the parameters of swiglu within 0.5 %, but for the few that activations train:

  relu, relu2, gelu, silu, elu, selu, swish (trained beta), crrelu, fatrelu, shifted_relu,
  poly_relu, poly_norm, sg_blend, dra, and silu_gated, relu_gated, poly_norm_gated

All have the rate that was found for relu2 at their width and half the steps of table 1.
Reproduces: no table. Published ones are of other sizes: PolyCom (arXiv 2411.03884) has
PolyNorm 0.05 below SwiGLU in validation loss or perplexity at 1 B; CRReLU (2405.12954) was
compared in vision; Primer (2109.08668) has the squared ReLU before GELU and ReLU.
Hardware: proxy two CPU cores, estimated at 1.6 hours, 110 runs.
"""

from typing import Any

from elas_jax.config.config import Config
from elas_jax.tables.entries import Entry, gap_lines
from elas_jax.tables.plan import At
from elas_jax.tables.table import Row, Table
from experiments.language import LANGUAGE, METRICS, resolved, scales, with_sizes

WIDTHS = {'d32': 32, 'd64': 64}
UNGATED = (
  *('relu', 'relu2', 'gelu', 'silu', 'elu', 'selu', 'swish', 'crrelu', 'fatrelu'),
  *('shifted_relu', 'poly_relu', 'poly_norm', 'sg_blend', 'dra'),
)
GATED = ('silu', 'relu', 'poly_norm')
FIELDS = {'swish': {'trained': True}}
ZEROS = (('sparsity/zero_fraction', 'zeros', 4),)
BASE = 'relu2'


def widths(at: At) -> dict[str, int]:
  """D, and F of ungated and of gated feed-forwards."""
  width = WIDTHS.get(at.size, 32)
  return {'width': width, 'ungated': 33 * width // 8, 'gated': 11 * width // 4}


def feed_forward(at: At, kind: str, activation: str) -> dict[str, Any]:
  sizes, where = widths(at), 'model.feed_forward'
  found = {where: kind, f'{where}.activation': activation}
  own = FIELDS.get(activation, {})
  found |= {f'{where}.activation.{name}': x for name, x in own.items()}
  gated = 'gated' if kind == 'glu' else 'ungated'
  return found | {'model.width': sizes['width'], 'model.feed_forward_width': sizes[gated]}


def rows(at: At) -> list[Row]:
  usual = {name: x for name, x in resolved(at, 'full').items() if name == 'train.steps'}
  usual |= {'eval.measures': 'sparsity'}
  base = Row(f'{BASE}_{at.size}', 'full', usual | feed_forward(at, 'mlp', BASE))
  found = []
  for kind, names in (('mlp', UNGATED), ('glu', GATED)):
    for name in names:
      fields = usual | feed_forward(at, kind, name)
      label = name if kind == 'mlp' else f'{name}_gated'
      found.append(Row(label, 'full', fields, rate_of=base))
  return found


def conclude(entries: list[Entry]) -> list[str]:
  labels = list(dict.fromkeys(x.label for x in entries))
  pairs = [(label, BASE) for label in labels if label != BASE]
  pairs += [
    ('silu_gated', 'silu'),
    ('relu_gated', 'relu'),
    ('poly_norm_gated', 'poly_norm'),
  ]
  return gap_lines(entries, pairs, METRICS[:1])


def cells(config: Config, entry: Entry) -> dict[str, str]:
  return {'F': str(config.model.feed_forward_width)}


TABLE = Table(
  title='Activations of a feed-forward, at equal parameters and two widths',
  rows=rows,
  family=LANGUAGE,
  scales=with_sizes(
    scales(lambda method: 4e-3, config='configs/proxy.py:full', paper=()), WIDTHS
  ),
  metrics=METRICS[:2] + ZEROS,
  cells=cells,
  conclude=conclude,
  notes=(
    'One rate for all, that of relu2 at each width: a difference may be that of the rate.',
    'selu starts as the other rows do, not by the LeCun normal start of its paper.',
    'zeros: exact ones among what enters the last map, in one validation batch after the '
    'last step, the mean over layers.',
    'Of so many differences about one in twenty has an interval without zero by chance.',
  ),
)
