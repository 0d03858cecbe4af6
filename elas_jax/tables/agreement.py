"""Whether a table ranks methods as published runs do: Kendall's tau, and who is first."""

from collections.abc import Mapping, Sequence

from elas_jax.tables.entries import Entry, Gap
from elas_jax.tables.table import MARKS, Metric, Published

LEAST = 0.6  # of Kendall's tau


def gate(
  entries: Sequence[Entry],
  methods: Sequence[str],
  published: Mapping[str, Mapping[str, Published]],
  metric: Metric,
  first: str,
) -> list[str]:
  """The line at the head of a proxy table: passed, failed, or not known yet, and by what.

  Kendall's tau-b (ties count for neither order) between the means of the metric and the
  published values, size -> method -> value, both the lower the better, over those of
  `methods` that have both. It is passed if every tau is at least LEAST and `first` is
  the best within its spread: no row of `methods` is shown to be better, seed by seed.
  """
  name, header, _ = metric
  known = {x.label: x for x in entries if x.label in methods and name in x.mean}
  if missing := [x for x in methods if x not in known]:
    return [f'Order of published runs: not known yet, no value of {", ".join(missing)}.']
  found = [_tau(known, size, values, name) for size, values in published.items()]
  better = [
    x.label
    for x in known.values()
    if x.label != first and _shown_below(x, known[first], name)
  ]
  passed = not better and all(tau >= LEAST for tau, _ in found)
  order = ', '.join(sorted(known, key=lambda label: known[label].mean[name]))
  best = (
    f'shown to be worse than {", ".join(better)}' if better else 'not shown to be worse'
  )
  return [
    f'Order of published runs: {"passed" if passed else "FAILED"}. '
    + '; '.join(text for _, text in found)
    + f' (at least {LEAST} is asked for); {first} is {best}'
    + f'{" than any" if not better else ""}. Here, by mean {header}: {order}. '
    + ' '.join(f'[{mark}]: {MARKS[mark]}.' for mark in _marks(known, published))
  ]


def tau(one: Mapping[str, float], other: Mapping[str, float]) -> float:
  """Kendall's tau-b of two lists of values, over the names of both.

  (Pairs in the same order - pairs in the other) / pairs, less those that tie.
  """
  from scipy.stats import kendalltau  # which takes a second to import

  both = [name for name in one if name in other]
  return float(kendalltau([one[x] for x in both], [other[x] for x in both]).statistic)


def _tau(
  known: Mapping[str, Entry], size: str, values: Mapping[str, Published], name: str
) -> tuple[float, str]:
  """Kendall's tau at a published size, and the words that say it."""
  means = {label: known[label].mean[name] for label in known}
  found = tau(means, {label: x.value for label, x in values.items()})
  both = [label for label in known if label in values]
  marks = {label: values[label].mark for label in both}
  counts = [
    f'{list(marks.values()).count(mark)} [{mark}]' for mark in sorted({*marks.values()})
  ]
  return found, f"Kendall's tau {found:+.2f} with {size} ({', '.join(counts)})"


def _marks(
  known: Mapping[str, Entry], published: Mapping[str, Mapping[str, Published]]
) -> list[str]:
  found = {x.mark for of in published.values() for label, x in of.items() if label in known}
  return [mark for mark in MARKS if mark in found]


def _shown_below(one: Entry, other: Entry, name: str) -> bool:
  found = Gap(one, other).of(name)
  return bool(found.shown and found.mean < 0)
