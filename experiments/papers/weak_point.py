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
Hardware: proxy 1.4 hours on two CPU cores, 36 runs (9 of which elas_gap has).
"""

from collections.abc import Iterable
from typing import Any

from elas_jax.common.paired import paired, with_spread
from elas_jax.config.config import Config
from elas_jax.tables.entries import Entry, Gap, gap_lines
from elas_jax.tables.plan import At
from elas_jax.tables.table import Row, Table
from experiments.language import ACTIVATIONS, LANGUAGE, METRICS, resolved, scales

METHODS = ('elas', 'loro_relu2')
RATIOS = {'1/8': 8, '1/4': 4, '1/2': 2}  # R / D
USUAL = 'ratio_1/4'
DEPTH = 8  # beside 4
DEEP, DEEPER = f'depth_{DEPTH}', {'model.layers': DEPTH}


def ratio(at: At, share: int) -> dict[str, Any]:
  """Of the rank D / share, with which the rate of LORO's lazy steps goes too."""
  return {'model.linear.rank': at.config('elas').model.width // share}


def phases(at: At) -> dict[str, dict[str, Any]]:
  steps, where = resolved(at, 'elas')['train.steps'], 'model.feed_forward'
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
  by = {x.label: x for x in entries}
  deep, control = f'elas_{DEEP}', f'loro_relu2_{DEEP}'
  others = [x for x in by if x.startswith(f'{deep}_')]
  pairs = [(f'elas_{x}', f'loro_relu2_{x}') for x in _settings(by)]
  pairs += [(x, y) for x in others for y in (control, deep)]
  closed = [closes(by[x], by[deep], by[control]) for x in others]
  return gap_lines(entries, pairs, METRICS[:1]) + closed + grows(by)


def closes(one: Entry, usual: Entry, control: Entry) -> str:
  """Which share of the gap of the usual phases another one closes, if that is shown."""
  name = METRICS[0][0]
  gap, change = Gap(usual, control).of(name), Gap(one, usual).of(name)
  if None in (gap.shown, change.shown):
    return f'{one.label}: which share of the gap it closes is not known yet.'
  if not (gap.shown and gap.mean > 0):
    return f'{one.label}: {usual.label} has no gap to close that is shown.'
  if not change.shown:
    return f'{one.label}: not shown to close any of the gap of {usual.label}.'
  share = f'{abs(change.mean) / gap.mean:.0%}'.replace('%', ' %')
  if change.mean > 0:
    return f'{one.label}: widens the gap of {usual.label} by {share}.'
  return f'{one.label}: closes {share} of the gap of {usual.label}.'


def grows(by: dict[str, Entry]) -> list[str]:
  """Whether the gap of a setting differs from that of R / D 1/4 at N 4, seed by seed."""
  name, header, digits = METRICS[0]
  gap = lambda x: Gap(by[f'elas_{x}'], by[f'loro_relu2_{x}']).of(name)
  of = lambda x: dict(zip(gap(x).seeds, gap(x).differences))
  lines = []
  for setting in (x for x in _settings(by) if x != USUAL):
    found = paired(of(setting), of(USUAL))
    said = f'gap of {setting} - gap of {USUAL}, {header}: '
    if found.seeds:
      said += f'{with_spread(found.mean, found.deviation, digits, "+")}; '
    lines += [said + found.verdict('the first', digits)]
  return lines


def _settings(labels: Iterable[str]) -> list[str]:
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
    'Of so many differences about one in twenty has an interval without zero by chance.',
  ),
)
