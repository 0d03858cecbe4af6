"""Does the order of methods survive another tokenisation? Five of table 1, both ways.

  python -m experiments.text_corpus
  python -m experiments.run proxy_text --scale=proxy --workers=2

Rows: two dense and one low-rank method whose order is the same at all four published sizes
(full, GaLore, low rank), LORO and ELAS; each by configs/proxy_text.py (a BPE of 4,096
tokens, a document a row) and by configs/proxy.py (bytes, documents joined), whose runs are
those of table1_perplexity. Of the other methods that have published values LoRA and ReLoRA
change places between sizes, and LOST and CoLA have values of third parties alone.
Reproduces: no table, and has no paper scale.
Hardware: smoke two minutes; proxy 1.4 hours on two CPU cores, 66 runs: half of them by
proxy_text, the others by proxy, which table 1 has.
"""

import dataclasses
import itertools
from collections.abc import Mapping

from elas_jax.tables.agreement import tau
from elas_jax.tables.entries import Entry, Gap, ranking
from elas_jax.tables.table import Row, Table
from experiments import published
from experiments.language import LANGUAGE, METRICS, scales

TEXT, BYTES = 'proxy_text', 'proxy'
METHODS = ('full', 'low_rank', 'galore', 'loro', 'elas')
PUBLISHED = ('60m', '130m')


def tau_line(said: str, one: Mapping[str, float], other: Mapping[str, float]) -> str:
  """Kendall's tau of two lists of values by method, and the pairs that they turn."""
  both = len(one.keys() & other.keys())
  turned = ', '.join(' and '.join(pair) for pair in _turned(one, other)) or 'no pair'
  return (
    f"{said}: Kendall's tau {tau(one, other):+.2f} over {both} methods; turned: {turned}."
  )


def _turned(one: Mapping[str, float], other: Mapping[str, float]) -> list[tuple[str, str]]:
  return [
    (a, b)
    for a, b in itertools.combinations([x for x in one if x in other], 2)
    if (one[a] - one[b]) * (other[a] - other[b]) < 0
  ]


def conclude(entries: list[Entry]) -> list[str]:
  by = {size: {x.label: x for x in entries if x.size == size} for size in (TEXT, BYTES)}
  name = METRICS[0][0]
  means = {
    size: {label: x.mean[name] for label, x in rows.items() if name in x.mean}
    for size, rows in by.items()
  }
  text, of_bytes = means[TEXT], means[BYTES]
  if len(text) < len(METHODS):
    missing = ', '.join(x for x in METHODS if x not in text)
    return [f'Order of methods by {TEXT}: not known, no value of {missing}.']
  lines = []
  if len(of_bytes) == len(METHODS):
    lines += [tau_line(f'{TEXT} beside {BYTES}', text, of_bytes)]
    shown = lambda a, b: all(Gap(x[a], x[b]).of(name).shown for x in by.values())
    sure = [f'{a} and {b}' for a, b in _turned(text, of_bytes) if shown(a, b)]
    lines += [f'Turned, and shown to differ by both: {", ".join(sure) or "no pair"}.']
  for size in PUBLISHED:
    # The first: of the source that the other methods' values are from too.
    values = {x: published.PERPLEXITY[x].get(size) for x in METHODS}
    values = {x: found[0].value for x, found in values.items() if found}
    lines += [
      tau_line(f'{of} beside published values at {size}', values, means[of])
      for of in (TEXT, BYTES)
      if len(means[of]) == len(METHODS)
    ]
  lines += [
    f'{size}: {ranking(list(rows.values()), METRICS[0], min)}'
    for size, rows in by.items()
    if means[size]
  ]
  return [*lines, _rows_line(by[TEXT].values())]


def _rows_line(entries: list[Entry]) -> str:
  """Which rows these are, which only their hash can tell, and by which Python."""
  found = [run.recorded for x in entries for run in x.runs if run.recorded]
  names = ', '.join(sorted({x.data for x in found} - {''}))
  pythons = ', '.join(sorted({x.versions.get('python', '') for x in found} - {''}))
  return (
    f'Rows of {TEXT}: fingerprint {names or "not recorded"} (of train, as text_corpus '
    f'prints it), by Python {pythons or "not recorded"}.'
  )


def _scales():
  found = scales(config='configs/{size}.py:{method}', paper=())
  found = {x: dataclasses.replace(y, sizes=(TEXT, BYTES)) for x, y in found.items()}
  # Without the corpus.
  of_smoke = {'data.source': 'python_source', 'data.tokenizer': 'bytes'}
  smoke = dataclasses.replace(found['smoke'], fields=found['smoke'].fields | of_smoke)
  return found | {'smoke': smoke}


TABLE = Table(
  title='Five methods by another tokenisation',
  rows=lambda at: [Row(x, x, published=published.PERPLEXITY[x]) for x in METHODS],
  family=LANGUAGE,
  scales=_scales(),
  conclude=conclude,
  notes=(
    f'{TEXT}: functions and classes of the standard library, docstrings of the installed '
    'packages; `python -m experiments.text_corpus` writes them. Other versions of Python '
    'or of a package give other documents, so that these runs can be repeated only where '
    'the fingerprint of the rows is the same.',
    'Learning rates are looked for by each protocol on its own, in the same grids around '
    'the same middles. The rate of embedding and head was chosen by proxy alone.',
    'Of several published values of a method the first is taken: full at 130m has that of '
    "the source of galore and low_rank; by the other, of ELAS's table, it is the best.",
  ),
)
