"""What pruning costs, by eight paired seeds: the gap, and the smallest that would be seen.

  python -m experiments.run elas_gap --scale=proxy --workers=2

Rows: ELAS and the same without pruning, by LORO and by AdamW. A pair has the same batches,
the same start and, where layers draw, the same numbers, seed by seed, and one learning
rate, since two would make a difference of their own: the one that table1_perplexity's
search chose for the control, and the one that it chose for ELAS, since by which of them
they are compared does too. Evaluated on a million bytes. As many steps as the runs of that
search, 60 % of that table's: eight seeds of fewer steps resolve more than three of all.
Reproduces: nothing published. For its size: ELAS has 0.07 to 0.28 of perplexity more than
LORO with SwiGLU at 60m to 1b (arXiv 2605.03667, by a third party's summary), which is 0.001
to 0.006 bits a byte at about four bytes a token, and the change of activation too:
less than eight seeds of this size resolve, which the page says.
Hardware: proxy 1.3 hours on two CPU cores, 61 runs (13 of which other tables have).
"""

from elas_jax.common.paired import with_spread
from elas_jax.tables.entries import Entry, Gap, gap_lines
from elas_jax.tables.plan import At
from elas_jax.tables.table import Row, Table
from experiments.language import LANGUAGE, METRICS, resolved, scales

PAIRS = (('elas', 'loro_relu2'), ('elas_adamw', 'low_rank_relu2'))


def label(method: str, elas: str, owner: str) -> str:
  return f'{method}_at_rate_of_{elas}' if owner == elas else method


def rows(at: At) -> list[Row]:
  return [
    Row(label(x, elas, owner), x, resolved(at, x), rate_of=Row(owner, owner))
    for elas, control in PAIRS
    for owner in (control, elas)
    for x in (elas, control)
  ]


def conclude(entries: list[Entry]) -> list[str]:
  of, pairs, same = {x.label: x for x in entries}, [], []
  for elas, control in PAIRS:
    pair = label(elas, elas, elas), label(control, elas, elas)
    pairs.append((elas, control))
    if of[pair[0]].rate is not None and of[pair[0]].rate == of[elas].rate:
      same.append(
        f'{pair[0]}, {pair[1]}: the runs of {elas}, {control}, as both rates are one.'
      )
    else:
      pairs.append(pair)
  lines = gap_lines(entries, pairs, METRICS) + same
  return lines + [resolution(of[a], of[b]) for a, b in pairs]


def resolution(one: Entry, other: Entry) -> str:
  """The interval of a pair's mean difference, and what would have been seen."""
  name, header, digits = METRICS[0]
  found = Gap(one, other).of(name)
  text = f'{one.label} - {other.label}, {header}'
  if found.low is None:
    return f'{text}: not known yet'
  mean = with_spread(found.mean, found.deviation, digits, '+')
  return (
    f'{text}: {mean} over {len(found.seeds)} seeds, {found.confidence:.0%} interval '
    f'{found.low:+.{digits}f} to {found.high:+.{digits}f}. A gap of {found.visible():.4f} '
    'would have been shown in four of five such tables.'
  ).replace('%', ' %')


TABLE = Table(
  title='What pruning costs: ELAS and its controls by eight paired seeds',
  rows=rows,
  family=LANGUAGE,
  scales=scales(paper=(), seeds=8),
  conclude=conclude,
)
