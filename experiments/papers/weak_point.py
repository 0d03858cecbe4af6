"""Where pruning costs most: rank, depth, and what might close the gap.

  python -m experiments.run weak_point --scale=proxy --workers=2

Pairs of ELAS and the same without pruning (loro_relu2), by rank R / D and by depth N; and,
of the deeper pair, ELAS with other phases of pruning (dense for a quarter of the run at its
start, or for the last tenth) or straight through the pruning in the backward pass. Learning
rates, steps and evaluation as in elas_gap, whose runs are those of R / D 1/4 at N 4.
Reproduces: no table; asked by one. ELAS is 0.44 of perplexity above its dense model at
130m and 1.14 at 350m, but 0.06 at 60m and 0.13 at 1b (arXiv 2605.03667, table 1). Of what
differs at 350m (N 24 at D 1024; R / D 1/4, as at 60m and 1b; a dense warm-up of 1,000 of
60,000 steps) this varies what a small model can.
Hardware: proxy three minutes a run on a CPU core, six where N is 8; 33 runs.
"""

from typing import Any

from elas_jax.common.paired import Paired
from elas_jax.config.config import Config
from elas_jax.tables.entries import Entry, Gap, gap_lines
from elas_jax.tables.plan import At
from elas_jax.tables.table import Row, Table
from experiments.language import ACTIVATIONS, LANGUAGE, METRICS, resolved, scales

METHODS = ('elas', 'loro_relu2')
RATIOS = {'1/8': 8, '1/4': 4, '1/2': 2}  # R / D
DEPTH = 8  # beside 4
DEEP, DEEPER = f'depth_{DEPTH}', {'model.layers': DEPTH}


def ratio(at: At, share: int) -> dict[str, Any]:
  """The fields of the rank D / share; LORO's lazy steps have R / D of the rate."""
  rank = at.config('elas').model.width // share
  return {'model.linear.rank': rank, 'optimizer.lazy_scale': 1 / share}


def phases(at: At) -> dict[str, dict[str, Any]]:
  usual, where = at.config('elas').train.steps, 'model.feed_forward'
  steps = resolved(at, 'elas').get('train.steps', usual)
  return {
    'dense_start': {f'{where}.dense_steps': steps // 4},
    'dense_end': {f'{where}.pruned_steps': steps - 2 * (steps // 10)},
    'straight_through': {f'{where}.recipe.backward': 'straight_through'},
  }


def settings(at: At) -> dict[str, dict[str, Any]]:
  by_ratio = {f'ratio_{label}': ratio(at, share) for label, share in RATIOS.items()}
  return by_ratio | {DEEP: DEEPER}


def rows(at: At) -> list[Row]:
  rate = Row(METHODS[-1], METHODS[-1])  # of the one without pruning, as in elas_gap
  usual = resolved(at, 'elas')
  found = [
    Row(f'{method}_{label}', method, usual | fields, rate_of=rate)
    for label, fields in settings(at).items()
    for method in METHODS
  ]
  return found + [
    Row(f'elas_{DEEP}_{name}', 'elas', usual | DEEPER | fields, rate_of=rate)
    for name, fields in phases(at).items()
  ]


def conclude(entries: list[Entry]) -> list[str]:
  labels = [x.label for x in entries]
  pairs = [(f'elas_{x}', f'loro_relu2_{x}') for x in _settings(labels)]
  others = [x for x in labels if x.startswith(f'elas_{DEEP}_')]
  pairs += [(x, f'loro_relu2_{DEEP}') for x in others]
  by = {x.label: x for x in entries}
  gap = lambda label: Gap(by[label], by[f'loro_relu2_{DEEP}']).of(METRICS[0][0])
  closed = [closes(x, gap(x), gap(f'elas_{DEEP}')) for x in others]
  return gap_lines(entries, pairs, METRICS[:1]) + closed


def closes(label: str, found: Paired, usual: Paired) -> str:
  """Which share of the gap of the usual phases another one closes."""
  if found.mean is None or usual.mean is None:
    return f'{label}: which share of the gap it closes is not known yet.'
  if not usual.shown:
    return f'{label}: no gap is shown that it could close.'
  share = f'{1 - found.mean / usual.mean:.0%}'.replace('%', ' %')
  return f'{label}: closes {share} of the gap at N {DEPTH}.'


def _settings(labels: list[str]) -> list[str]:
  return [x.removeprefix('loro_relu2_') for x in labels if x.startswith('loro_relu2_')]


def cells(config: Config, entry: Entry) -> dict[str, str]:
  return {'R': str(config.model.linear.rank), 'N': str(config.model.layers)}


TABLE = Table(
  title='Where pruning costs most: by rank, by depth, and by its phases',
  rows=rows,
  family=LANGUAGE,
  scales=scales(paper=()),
  metrics=METRICS[:1] + ACTIVATIONS,
  cells=cells,
  conclude=conclude,
  notes=(
    'ratio_1/4 is the pair of elas_gap.',
    'dense_start: dense for a quarter of the run instead of a tenth. dense_end: dense for '
    'the last tenth too, and evaluated so: what is left of the gap is what pruning did to '
    'training. straight_through: no pruning in the backward pass.',
  ),
)
