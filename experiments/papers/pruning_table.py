"""Pruned decoders: weights, units, layers; in one shot, trained on, and rewound.

  python -m experiments.run pruning_table --scale=proxy --workers=2

One decoder with a gated ReLU, trained once for each seed (relu of prosparse), and what the
converters make of it. Each row is trained on for a tenth of the steps at a quarter of the
rate; `start` is what the converter alone did, in one shot.

  dense              trained on without a change
  magnitude_30 ...   the smallest weights of all maps to zero (arXiv 2306.03805), which stay
  two_four, four_eight  2 of 4 and 4 of 8 consecutive weights stay
  essential          as many as cost 1 % of perplexity
  width_90 ...       feed-forwards cut to 90 to 40 % of their units (arXiv 2512.22671), the
                     six shares that it publishes beside 100 %

From the start, with all of the steps, as arXiv 2212.06145 and 2301.10835 train them:

  ap, ap_magnitude   a cycle of 20 % by AP, or by magnitude alone, rewound
  layers_less        the layer of least GraSP at initialisation left out, rewound; and
  layers_less_fresh  as few layers from another start, the control

Of the dense row it is said as well what merging alike units of feed-forwards (IFM, arXiv
2310.06756) makes of it.
Reproduces: no table. Essential sparsity is 21.5 % for BERT and about 40 % for OPT-1.3B,
after fine-tuning; AP gains 3 to 4 % of accuracy in vision, after 25 cycles.
Hardware: proxy two CPU cores, estimated at 25 minutes, 57 runs.
"""

import dataclasses
from typing import Any

from elas_jax.config.config import Config
from elas_jax.tables.entries import Entry, gap_lines
from elas_jax.tables.plan import At
from elas_jax.tables.table import RATE, Metric, Row, Table
from experiments.language import LANGUAGE, METRICS, scales
from experiments.looks import BETAS, MERGING, START
from experiments.sparse import ZEROS, gated

SHORT = 0.1  # of the steps
SHARES = (0.3, 0.5, 0.7, 0.9)
PATTERNS = {'two_four': '2:4', 'four_eight': '4:8'}
# Of the units, those that are kept: the published ratios 3.6 to 1.6 of Llama-3.2-1B's 4.
WIDTHS = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4)
AT_START: tuple[Metric, ...] = (
  ('start/bits_per_byte', 'bits per byte at the start', 4),
  ('start/pruned', 'weights pruned', 3),
)
MASKED = {'model.linear': 'masked'}
BASE = gated('relu')


def trained_on(at: At, label: str, converter: str, fields: dict[str, Any]) -> Row:
  steps = max(round(SHORT * at.config('full').train.steps), 2)
  own = BASE.fields | {RATE: 1e-3, 'train.steps': steps, 'eval.every': steps} | fields
  return Row(label, 'full', own, after=BASE, converter=converter, look=START)


def rewound(label: str, converter: str, fields: dict[str, Any]) -> Row:
  own = BASE.fields | fields
  return Row(label, 'full', own, after=BASE, converter=converter, look=START)


def rows(at: At) -> list[Row]:
  model = at.config('full').model
  F, D, N = model.feed_forward_width, model.width, model.layers
  found = [dataclasses.replace(trained_on(at, 'dense', '', {}), look=MERGING)]
  for share in SHARES:
    prune = f'prune --converter.sparsity={share}'
    found.append(trained_on(at, f'magnitude_{share:.0%}'.rstrip('%'), prune, MASKED))
  for label, pattern in PATTERNS.items():
    prune = f'prune --converter.pattern={pattern}'
    found.append(trained_on(at, label, prune, MASKED))
  found.append(trained_on(at, 'essential', 'essential', MASKED))
  for share in WIDTHS:
    width = round(share * F)
    cut = f'width --converter.ratio={width / D}'
    own = {'model.feed_forward_width': width}
    found.append(trained_on(at, f'width_{100 * share:.0f}', cut, own))
  by_magnitude = 'ap --converter.activating=0.0'
  fewer = {'model.layers': N - 1, 'model.unroll': 1}
  return [
    *found,
    rewound('ap', 'ap', MASKED),
    rewound('ap_magnitude', by_magnitude, MASKED),
    rewound('layers_less', 'layers', fewer),
    Row('layers_less_fresh', 'full', BASE.fields | fewer),
  ]


def conclude(entries: list[Entry]) -> list[str]:
  labels = [x.label for x in entries]
  last = labels.index('ap')
  pairs = [(label, 'dense') for label in labels[1:last]]
  pairs += [('ap', 'ap_magnitude'), ('layers_less', 'layers_less_fresh')]
  pairs += [('two_four', 'magnitude_50'), ('four_eight', 'two_four')]
  return [*gap_lines(entries, pairs, METRICS[:1]), *merged(entries[0])]


def merged(dense: Entry) -> list[str]:
  """What merging units has left of the dense row, by threshold, in one shot."""
  of = lambda name, beta: dense.mean.get(f'{MERGING.name}/{name}_{beta:g}')
  found = [(beta, of('units', beta), of('bits', beta)) for beta in BETAS]
  if None in [x for one in found for x in one]:
    return []
  text = '; '.join(
    f'beta {beta:g}: {units:.1%} of the units, {bits:.4f} bits per byte'
    for beta, units, bits in found
  )
  return [f'dense with its alike units merged, not trained on: {text}.'.replace('%', ' %')]


def cells(config: Config, entry: Entry) -> dict[str, str]:
  return {'F': str(config.model.feed_forward_width), 'N': str(config.model.layers)}


TABLE = Table(
  title='Pruning: weights, units and layers, in one shot, trained on, rewound',
  rows=rows,
  family=LANGUAGE,
  scales=scales(paper=()),
  metrics=(*AT_START, *METRICS[:2], ZEROS),
  cells=cells,
  conclude=conclude,
  notes=(
    'Bits per byte at the start: of what the converter made, before it was trained on; of '
    'rewound rows that is an untrained model.',
    'Parameters of masked rows count their zeros.',
    'zeros: of activations, the mean over layers. AP is to lower the share of units that '
    'are zero for all of a batch; here is one of its cycles of 25.',
    'Of so many differences about one in twenty has an interval without zero by chance.',
    'Rates were not searched: 1e-3 of what is trained on, 4e-3 of what is trained anew.',
  ),
)
