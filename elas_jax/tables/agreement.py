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
  `methods` that have both. It is passed if every tau is at least LEAST and no row is shown,
  seed by seed, to be better than `first` that published runs do not have ahead of it too.
  Nothing is said before all runs of all these rows have ended.
  """
  name, header, _ = metric
  known = {x.label: x for x in entries if x.label in methods and name in x.mean}
  missing = [x for x in methods if x not in known or known[x].of('not run')]
  if missing:
    lacking = ', '.join(missing)
    return [f'Order of published runs: not known, not all seeds have a value of {lacking}.']
  taus = [_tau(known, size, values, name) for size, values in published.items()]
  is_best, best = _best(known, published, name, first)
  passed = is_best and all(tau >= LEAST for tau, _ in taus)
  order = ', '.join(sorted(known, key=lambda label: known[label].mean[name]))
  return [
    f'Order of published runs: {"passed" if passed else "FAILED"}. '
    + '; '.join(text for _, text in taus)
    + f' (at least {LEAST} is asked for); {best}. Here, by mean {header}: {order}. '
    + ' '.join(f'[{mark}]: {MARKS[mark]}.' for mark in _marks(known, published))
  ]


def _best(
  known: Mapping[str, Entry],
  published: Mapping[str, Mapping[str, Published]],
  name: str,
  first: str,
) -> tuple[bool, str]:
  """Whether `first` is the best as far as is shown, and the words that say it."""
  found = {x: Gap(known[x], known[first]).of(name) for x in known if x != first}
  if any(x.shown is None for x in found.values()):
    return True, f'whether {first} is the best cannot be said by one seed'
  better = [label for label, x in found.items() if x.shown and x.mean < 0]
  ahead = [label for label in better if _ahead(label, published, first)]
  if better == ahead:
    but = f' but {", ".join(ahead)}, as published runs have it' if ahead else ''
    return True, f'{first} is not shown to be worse than any{but}'
  worse = [label for label in better if label not in ahead]
  return False, f'{first} is shown to be worse than {", ".join(worse)}'


def _ahead(
  label: str, published: Mapping[str, Mapping[str, Published]], first: str
) -> bool:
  """Whether it is better than `first` at every size that has both, of one at least."""
  both = [of for of in published.values() if label in of and first in of]
  return bool(both) and all(of[label].value < of[first].value for of in both)


def tau(one: Mapping[str, float], other: Mapping[str, float]) -> float:
  """Kendall's tau-b of two lists of values, over the names of both.

  (C - D) / sqrt((n - t) (n - u)): of all n pairs C are in the same order, D in the other,
  and t and u tie in the one list and in the other.
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
