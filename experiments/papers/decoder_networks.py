"""Decoders of quadratic and Kolmogorov-Arnold layers beside SwiGLU and squared ReLU.

  python -m experiments.run decoder_networks --scale=proxy --workers=2

Rows, all with the parameters of swiglu within 0.5 %, trained by AdamW on Python's source:

  swiglu, relu2  dense layers and the usual feed-forwards
  kat            dense layers, group-rational functions in the feed-forward
  quadratic      quadratic layers everywhere, which have three times the parameters, so the
                 model is narrower; with squared ReLU

Reproduces: no table, and has no paper scale.
Hardware: proxy 40 minutes on two CPU cores, 25 runs.
"""

from typing import Any

from elas_jax.config.config import Config
from elas_jax.tables.entries import Entry, gap_lines
from elas_jax.tables.plan import At
from elas_jax.tables.table import Row, Table
from experiments.language import LANGUAGE, METRICS, scales

RELU2 = {'model.feed_forward': 'mlp'}


def widths(width: int, feed_forward_width: int) -> dict[str, Any]:
  """At which the parameters are nearest to swiglu's, F near 4 D."""
  return {'model.width': width, 'model.feed_forward_width': feed_forward_width}


DECODERS = {
  'swiglu': {},
  'relu2': RELU2 | widths(64, 264),
  'kat': {'model.feed_forward': 'kat'} | widths(64, 264),
  'quadratic': RELU2 | {'model.linear': 'quadratic'} | widths(40, 140),
}


def decoder(at: At, name: str) -> Row:
  fields = DECODERS[name]
  if at.scale == 'smoke':  # all as narrow as the scale says
    fields = {field: value for field, value in fields.items() if field not in widths(0, 0)}
  return Row(name, name, fields, rate_of=Row(name, name, fields))


def rows(at: At) -> list[Row]:
  return [decoder(at, name) for name in DECODERS]


def conclude(entries: list[Entry]) -> list[str]:
  names = [entry.label for entry in entries]
  usual, others = names[:2], names[2:]
  pairs = [usual[::-1], *((name, base) for name in others for base in usual)]
  return gap_lines(entries, pairs, METRICS)


def cells(config: Config, entry: Entry) -> dict[str, str]:
  return {'D': str(config.model.width), 'F': str(config.model.feed_forward_width)}


TABLE = Table(
  title='Decoders of quadratic and Kolmogorov-Arnold layers, at equal parameters',
  rows=rows,
  family=LANGUAGE,
  scales=scales(lambda method: 4e-3, config='configs/proxy.py:full', paper=()),
  cells=cells,
  conclude=conclude,
  notes=(
    'D and F: widths of the model and its feed-forward. Decoders of layers with more '
    'parameters an edge are narrower, embeddings too.',
    'quadratic starts as its linear layer (ReLinear); all of its parameters but '
    'embedding and head have one rate.',
    'Kolmogorov-Arnold layers with a function on every edge (kan_skan and others) are not '
    'in it, for what they cost: at equal parameters they take longer.',
    "swiglu is table 1's full.",
  ),
)
