"""Whether a table ranks methods as published runs do: Kendall's tau, and who is first."""

import math
from collections.abc import Mapping, Sequence

from elas_jax.run.record import DIVERGED
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
  """The line at the head of a proxy table: passed, failed, or not known, and by what.

  Kendall's tau-b (ties count for neither order) between the means of the metric and the
  published values, size -> method -> value, both the lower the better, over those of
  `methods` that have both. A method of which a run diverged ranks last. It has failed if a
  tau is below LEAST, or if a row is shown, seed by seed, to be better than `first` that
  published runs do not have ahead of it too; passed if neither is so and two seeds or more
  say so of every row. Nothing is said before all runs of all these rows have ended.
  """
  name, header, _ = metric
  known = {x.label: x for x in entries if x.label in methods and _ended(x, name)}
  missing = [x for x in methods if x not in known]
  if missing:
    lacking = ', '.join(missing)
    return [f'Order of published runs: not known, not all seeds have a value of {lacking}.']
  diverged = {label: len(x.of(DIVERGED)) for label, x in known.items() if x.of(DIVERGED)}
  means = {x: math.inf if x in diverged else known[x].mean[name] for x in known}
  taus = [_tau(means, size, values) for size, values in published.items()]
  is_best, best = _best(known, published, name, first)
  passed = all(tau >= LEAST for tau, _ in taus) and is_best
  verdict = {True: 'passed', False: 'FAILED', None: 'not known'}[passed]
  fallen = ', '.join(f'{count} of {label}' for label, count in diverged.items())
  return [
    f'Order of published runs: {verdict}. '
    + '; '.join(text for _, text in taus)
    + f' (at least {LEAST} is asked for); {best}. '
    + (f'Diverged, and last therefore: {fallen}. ' if diverged else '')
    + f'Here, by mean {header}: {", ".join(sorted(means, key=means.get))}. '
    + ' '.join(f'[{mark}]: {MARKS[mark]}.' for mark in _marks(known, published))
  ]


def _ended(entry: Entry, name: str) -> bool:
  """Whether all of its runs have, with a value or diverged."""
  if not entry.runs or entry.of('not run'):
    return False
  return bool(entry.of(DIVERGED)) or name in entry.mean


def _best(
  known: Mapping[str, Entry],
  published: Mapping[str, Mapping[str, Published]],
  name: str,
  first: str,
) -> tuple[bool | None, str]:
  """Whether `first` is the best as far as is shown, and the words that say it."""
  if known[first].of(DIVERGED):
    return False, f'{first} diverged'
  others = [x for x in known if x != first and not known[x].of(DIVERGED)]
  found = {x: Gap(known[x], known[first]).of(name) for x in others}
  better = [label for label, x in found.items() if x.shown and x.mean < 0]
  ahead = [label for label in better if _ahead(label, published, first)]
  if better != ahead:
    worse = [label for label in better if label not in ahead]
    return False, f'{first} is shown to be worse than {", ".join(worse)}'
  if any(x.shown is None for x in found.values()):
    return None, f'whether {first} is the best cannot be said by one seed'
  but = f' but {", ".join(ahead)}, as published runs have it' if ahead else ''
  return True, f'{first} is not shown to be worse than any{but}'


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
  means: Mapping[str, float], size: str, values: Mapping[str, Published]
) -> tuple[float, str]:
  """Kendall's tau at a published size, and the words that say it."""
  found = tau(means, {label: x.value for label, x in values.items()})
  marks = [values[label].mark for label in means if label in values]
  counts = ', '.join(f'{marks.count(mark)} [{mark}]' for mark in sorted({*marks}))
  said = f'{found:+.2f}' if math.isfinite(found) else 'undefined, of equal values,'
  return found, f"Kendall's tau {said} with {size} ({counts})"


def _marks(
  known: Mapping[str, Entry], published: Mapping[str, Mapping[str, Published]]
) -> list[str]:
  found = {x.mark for of in published.values() for label, x in of.items() if label in known}
  return [mark for mark in MARKS if mark in found]
