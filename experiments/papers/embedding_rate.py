"""The rate of embedding and head that all language proxies have: chosen once, here.

  python -m experiments.run embedding_rate --scale=proxy --workers=2

Rows: full rank and low rank, each at both rates that were considered, with the best rate
of the other parameters beside each. One seed, that of all searches. The rate of the lower
mean over both methods is in configs/default.py, for all tables of small language models.
Reproduces: no table, and has no paper scale: published runs have one rate.
Hardware: proxy 0.6 hours on two CPU cores, 17 runs.
"""

import statistics

from elas_jax.tables.entries import Entry
from elas_jax.tables.plan import At
from elas_jax.tables.table import Row, Table
from experiments.language import LANGUAGE, METRICS, scales

RATES = (0.008, 0.016)
METHODS = ('full', 'low_rank')


def row(method: str, rate: float) -> Row:
  label, fields = f'{method}_{rate:g}', {'optimizer.embedding_rate': rate}
  return Row(label, method, fields, rate_of=Row(label, method, fields))


def rows(at: At) -> list[Row]:
  return [row(method, rate) for method in METHODS for rate in RATES]


def conclude(entries: list[Entry]) -> list[str]:
  name, header, digits = METRICS[0]
  found = {}
  for rate in RATES:
    means = [x.mean.get(name) for x in entries if x.label.endswith(f'_{rate:g}')]
    if len(means) != len(METHODS) or None in means:
      return ['Which rate is lower over both methods: not known, not all runs are done.']
    found[rate] = statistics.mean(means)
  shown = ', '.join(f'{rate:g}: {value:.{digits}f}' for rate, value in found.items())
  best = min(found, key=found.get)
  edge = ', the larger of the two: a larger one was not tried' if best == RATES[-1] else ''
  return [f'Mean {header} of {" and ".join(METHODS)}: {shown}. Taken: {best:g}{edge}.']


TABLE = Table(
  title='The rate of embedding and head',
  rows=rows,
  family=LANGUAGE,
  scales=scales(paper=(), seeds=1),
  conclude=conclude,
  first_seed=1000,
)
