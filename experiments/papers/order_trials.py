"""What the order of methods in table 1's proxy hangs on: width, length, what is evaluated.

  python -m experiments.run order_trials --scale=proxy --workers=2

Rows: methods of table 1 that have published values, with the learning rates of its
searches, one seed. All of them as in table 1 (usual) and evaluated on a million bytes
instead of the first 131,072 of them (more_text); and wider (D 96, F 264, R 24: half as
much again) and longer (twice the tokens) those four among which the proxy and print differ
most: full-rank AdamW, first in the proxy; LORO and GaLore, near it or before it in print
and low in the proxy; LoRA, above them in the proxy and far below them in print at 130m.
The trial by another tokenisation is proxy_text.
Reproduces: no table, and has no paper scale.
Hardware: proxy 0.6 hours on two CPU cores, 17 runs beside those of table 1.
"""

import dataclasses
import functools

from elas_jax.common.paired import with_spread
from elas_jax.config.config import Config
from elas_jax.tables.agreement import gate
from elas_jax.tables.entries import Entry, Gap
from elas_jax.tables.plan import At
from elas_jax.tables.table import Row, Table
from experiments import published
from experiments.language import LANGUAGE, METRICS, scales

WIDTHS = (
  'model.width',
  'model.feed_forward_width',
  'model.linear.rank',
  'optimizer.rank',
)


def wider(config: Config) -> dict[str, int]:
  """The widths of a config that it has, half as large again."""
  found = {}
  for name in WIDTHS:
    *where, field = name.split('.')
    value = getattr(functools.reduce(getattr, where, config), field, None)
    if value is not None:
      found[name] = value * 3 // 2
  return found


BEST = 'full'
FOUR = (BEST, 'galore', 'loro', 'lora')
# Of each trial its methods, and what it changes.
TRIALS = {
  'usual': (published.ORDER, lambda config: {}),
  'wider': (FOUR, wider),
  'longer': (FOUR, lambda config: {'train.steps': 2 * config.train.steps}),
  'more_text': (published.ORDER, lambda config: {'eval.units': 8 * config.eval.units}),
}


def row(at: At, method: str, trial: str) -> Row:
  _, changed = TRIALS[trial]
  fields = changed(at.config(method))
  return Row(f'{method}_{trial}', method, fields, rate_of=Row(method, method))


def rows(at: At) -> list[Row]:
  return [row(at, method, x) for x, (methods, _) in TRIALS.items() for method in methods]


def by_trial(entries: list[Entry]) -> dict[str, dict[str, Entry]]:
  """The entries of each trial, by their methods."""
  of = {x.label: x for x in entries}
  return {x: {y: of[f'{y}_{x}'] for y in methods} for x, (methods, _) in TRIALS.items()}


def first(entries: list[Entry]) -> list[str]:
  found = []
  for trial, of in by_trial(entries).items():
    named = [dataclasses.replace(x, label=label) for label, x in of.items()]
    lines = gate(named, tuple(of), published.ORDERS, METRICS[0], BEST)
    found += [f'{trial}: {line}' for line in lines]
  return found


def conclude(entries: list[Entry]) -> list[str]:
  """How far each method is from full in each of its trials."""
  name, header, digits = METRICS[0]
  found: dict[str, list[str]] = {}
  for trial, of in by_trial(entries).items():
    for method in (x for x in of if x != BEST):
      gap = Gap(of[method], of[BEST]).of(name)
      said = with_spread(gap.mean, gap.deviation, digits, '+') if gap.seeds else 'not known'
      found.setdefault(method, []).append(f'{trial} {said}')
  return [f'{x} - {BEST}, {header}: {", ".join(gaps)}.' for x, gaps in found.items()]


TABLE = Table(
  title='Does the order of methods change with size, length, or what is evaluated?',
  rows=rows,
  family=LANGUAGE,
  scales=scales(paper=(), seeds=1),
  first=first,
  conclude=conclude,
  notes=(
    'By full, wider has about 10 tokens a parameter and longer 44, where usual has 22. All '
    'take the rates of usual, which were not searched again.',
    'more_text: the runs of usual, evaluated on a million bytes of validation text, of '
    'which 12 % are character tables.',
  ),
)
