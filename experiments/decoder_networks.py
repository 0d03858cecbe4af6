"""Decoders of quadratic and Kolmogorov-Arnold layers beside SwiGLU and squared ReLU.

  python -m experiments.decoder_rates --scale=proxy  # first: it chooses learning rates
  python -m experiments.decoder_networks --scale=smoke
  python -m experiments.decoder_networks --scale=proxy

Rows, all with the parameters of swiglu within 0.5 %, trained by AdamW on Python's source:

  swiglu, relu2  dense layers and the usual feed-forwards
  kat            dense layers, group-rational functions in the feed-forward
  quadratic      quadratic layers everywhere, which have three times the parameters, so the
                 model is narrower; with squared ReLU
  kan_...        Kolmogorov-Arnold layers everywhere, with squared ReLU: of those that
                 experiments.decoder_rates tries the best

Reproduces: no table.
Hardware: proxy two CPU cores, 15 runs of 500 steps, 3 of them table 1's, two to five
minutes each. There is no paper scale.
Expected: experiments/results/decoder_networks/proxy.md.
"""

import dataclasses
import json
from typing import Any

from elas_jax.config.cli import run_command
from elas_jax.config.config import Config
from experiments import report
from experiments.harness import LANGUAGE, Experiment, main
from experiments.rates import RATE, chosen_rate
from experiments.runs import SCALES, Row, Scale, Setting

KAN = 'kan_'
RELU2 = {'model.feed_forward': 'mlp'}


def narrower(width: int, feed_forward_width: int) -> dict[str, Any]:
  return {'model.width': width, 'model.feed_forward_width': feed_forward_width}


# By name; widths are those at which the parameters are nearest to swiglu's, F near 4 D.
DECODERS = {
  'swiglu': {},
  'relu2': RELU2 | narrower(192, 768),
  'kat': {'model.feed_forward': 'kat'} | narrower(192, 768),
  'quadratic': RELU2 | {'model.linear': 'quadratic'} | narrower(112, 448),
  'kan_chebyshev': RELU2 | {'model.linear': 'kan_chebyshev'} | narrower(96, 400),
  'kan_fast': RELU2
  | {
    'model.linear': 'kan_fast',
    'model.linear.grid': 4,
    'model.linear.grid_min': -2.0,
    'model.linear.grid_max': 2.0,
  }
  | narrower(80, 408),
  'kan_skan': RELU2 | {'model.linear': 'kan_skan'} | narrower(192, 752),
}
SMOKE_RATE = 2e-3


def of_decoder(setting: Setting, size: str, name: str, rate: bool) -> dict[str, Any]:
  fields = {'optimizer.weight_decay': 0.1}
  if rate:
    smoke = setting.scale == 'smoke'
    fields[RATE] = SMOKE_RATE if smoke else chosen_rate(name, setting.rates)
  return fields


def scales() -> dict[str, Scale]:
  spec = 'configs/default.py:full'
  return {
    name: dataclasses.replace(SCALES[name], config=spec, of_method=of_decoder)
    for name in ('smoke', 'proxy')
  }


def decoder(setting: Setting, name: str) -> Row:
  fields = DECODERS[name]
  if setting.scale == 'smoke':  # all as narrow as the scale says
    widths = narrower(0, 0)
    fields = {field: value for field, value in fields.items() if field not in widths}
  return Row(name, name, fields)


def best_kan(entries: list[dict[str, Any]]) -> str | None:
  """The Kolmogorov-Arnold decoder of the lowest bits per byte, when all are known."""
  scores = {}
  for entry in entries:
    if entry['method'].startswith(KAN):
      score = entry['mean'].get('eval/bits_per_byte', float('inf'))
      scores[entry['method']] = min(score, scores.get(entry['method'], score))
      if any(run['status'] == 'not run' for run in entry['runs']):
        return None
  return min(scores, key=scores.get) if scores else None


def rows(setting: Setting, size: str) -> list[Row]:
  names = [name for name in DECODERS if not name.startswith(KAN)]
  if setting.scale == 'smoke':
    return [decoder(setting, name) for name in DECODERS]
  known = setting.rates.exists() and json.loads(setting.rates.read_text())['rows']
  best = best_kan(known) if known else None
  return [decoder(setting, name) for name in (*names, best) if name]


def cells(config: Config, outcomes: list[dict[str, Any]]) -> dict[str, str]:
  return {'D': str(config.model.width), 'F': str(config.model.feed_forward_width)}


def conclude(entries: list[dict[str, Any]]) -> tuple[Any, list[str]]:
  names = [entry['label'] for entry in entries]
  pairs = [(name, base) for name in names[2:] for base in names[:2]]
  gaps, lines = report.gaps(entries, tuple(pairs))
  return {'gaps': gaps}, lines


FAMILY = dataclasses.replace(LANGUAGE, rates='decoder_rates')
EXPERIMENT = Experiment(
  name='decoder_networks',
  title='Decoders of quadratic and Kolmogorov-Arnold layers, at equal parameters',
  rows=rows,
  family=FAMILY,
  scales=scales(),
  cells=cells,
  conclude=conclude,
  notes=(
    'D and F: widths of the model and its feed-forward. Decoders of layers with more '
    'parameters an edge are narrower, embeddings too.',
    'quadratic starts as its linear layer (ReLinear) and is trained at one rate.',
    'Of the Kolmogorov-Arnold layers chebyshev (order 3), fast (4 Gaussians) and skan were '
    'tried, at equal parameters; AF-KAN and the others were not, for their time.',
    "swiglu is table 1's full, whose seeds spread more than those of the other rows.",
  ),
)

if __name__ == '__main__':
  run_command(lambda: main(EXPERIMENT))
