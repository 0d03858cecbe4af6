"""Decoders of quadratic and Kolmogorov-Arnold layers beside SwiGLU and squared ReLU.

  python -m experiments.run decoder_networks --scale=proxy --workers=2

Rows, all with the parameters of swiglu within 0.5 %, trained by AdamW on Python's source:

  swiglu, relu2  dense layers and the usual feed-forwards
  kat            dense layers, group-rational functions in the feed-forward
  quadratic      quadratic layers everywhere, which have three times the parameters, so the
                 model is narrower; with squared ReLU
  kan_...        Kolmogorov-Arnold layers everywhere, with squared ReLU: the best of those
                 whose learning rates are searched

Reproduces: no table, and has no paper scale.
Hardware: proxy three minutes a run on a CPU core; those of Kolmogorov-Arnold layers take
longer and were not timed.
"""

from typing import Any

from elas_jax.config.config import Config
from elas_jax.tables.entries import Entry, gap_lines
from elas_jax.tables.plan import At
from elas_jax.tables.table import Row, Table
from experiments.language import LANGUAGE, METRICS, scales

KAN = 'kan_'
RELU2 = {'model.feed_forward': 'mlp'}
FAST = {'grid': 4, 'grid_min': -2.0, 'grid_max': 2.0}


def widths(width: int, feed_forward_width: int) -> dict[str, Any]:
  """At which the parameters are nearest to swiglu's, F near 4 D."""
  return {'model.width': width, 'model.feed_forward_width': feed_forward_width}


DECODERS = {
  'swiglu': {},
  'relu2': RELU2 | widths(64, 264),
  'kat': {'model.feed_forward': 'kat'} | widths(64, 264),
  'quadratic': RELU2 | {'model.linear': 'quadratic'} | widths(40, 140),
  'kan_chebyshev': RELU2 | {'model.linear': 'kan_chebyshev'} | widths(32, 146),
  'kan_fast': RELU2
  | {'model.linear': 'kan_fast'}
  | {f'model.linear.{name}': value for name, value in FAST.items()}
  | widths(32, 104),
  'kan_skan': RELU2 | {'model.linear': 'kan_skan'} | widths(64, 250),
}


def decoder(at: At, name: str) -> Row:
  fields = DECODERS[name]
  if at.scale == 'smoke':  # all as narrow as the scale says
    fields = {field: value for field, value in fields.items() if field not in widths(0, 0)}
  return Row(name, name, fields, rate_of=Row(name, name, fields))


def rows(at: At) -> list[Row]:
  found = [decoder(at, name) for name in DECODERS]
  kans = [row for row in found if row.method.startswith(KAN)]
  searches = [at.search(row) for row in kans]
  if at.scale == 'smoke' or None in searches:  # which looks for no rates
    return found
  scores = {row.label: x.best and x.score for row, x in zip(kans, searches)}
  best = None if None in scores.values() else min(scores, key=scores.get)
  return [row for row in found if row not in kans or row.label == best]


def conclude(entries: list[Entry]) -> list[str]:
  names = [entry.label for entry in entries]
  pairs = [(name, base) for name in names[2:] for base in names[:2]]
  return gap_lines(entries, pairs, METRICS)


def cells(config: Config, entry: Entry) -> dict[str, str]:
  return {'D': str(config.model.width), 'F': str(config.model.feed_forward_width)}


TABLE = Table(
  title='Decoders of quadratic and Kolmogorov-Arnold layers, at equal parameters',
  rows=rows,
  family=LANGUAGE,
  scales=scales(lambda method: 4e-3, config='configs/proxy.py:full', paper=()),
  searched=lambda at: [decoder(at, name) for name in DECODERS],
  cells=cells,
  conclude=conclude,
  notes=(
    'D and F: widths of the model and its feed-forward. Decoders of layers with more '
    'parameters an edge are narrower, embeddings too.',
    'quadratic starts as its linear layer (ReLinear); all of its parameters have one rate.',
    'Of the Kolmogorov-Arnold layers chebyshev (order 3), fast (4 Gaussians) and skan were '
    'tried, at equal parameters; AF-KAN and the others were not, for their time.',
    "swiglu is table 1's full.",
  ),
)
