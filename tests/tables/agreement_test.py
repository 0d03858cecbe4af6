"""The line that says whether a table ranks methods as published runs do."""

import dataclasses

import pytest

from elas_jax.tables.agreement import gate
from elas_jax.tables.render import Section
from elas_jax.tables.table import RATE, Published, Row
from experiments.language import METRICS
from experiments.published import ORDER, ORDERS
from tests.tables.fakes import pair, plan_of, record_all, recorded

LABELS = ('full', 'low_rank', 'lora', 'cola')
VALUES = {'60m': (1, 4, 3, 2), '130m': (1, 3, 2, 4)}
METRIC = METRICS[0]


PUBLISHED = {
  size: {x: Published(float(v), 'somebody', 'P') for x, v in zip(LABELS, values)}
  for size, values in VALUES.items()
}
PUBLISHED['60m']['cola'] = Published(2.0, 'somebody', 'C')


def made(bits, spread=0.001, seeds=None):
  """A section whose means are `bits`, by label; a seed adds `spread`, or takes it off."""
  rows = [Row(label, label, {RATE: 0.5}) for label in LABELS]
  first = lambda entries: gate(entries, LABELS, PUBLISHED, METRIC, 'full')
  table = pair(rows=lambda at: rows, first=first)
  number = {label: n for n, label in enumerate(LABELS)}
  of = lambda run: bits[run.label] + spread * (run.seed - 1) * (-1) ** number[run.label]
  return Section(plan_of(table, record_all(table, of)), 'pair')


def test_the_published_order_passes():
  section = made(dict(zip(LABELS, (1.0, 1.4, 1.2, 1.3))))
  assert section.first == [
    "Order of published runs: passed. Kendall's tau +0.67 with 60m (1 [C], 3 [P]); "
    "Kendall's tau +0.67 with 130m (4 [P]) (at least 0.6 is asked for); full is not shown "
    'to be worse than any. Here, by mean bits per byte: full, lora, cola, low_rank. '
    '[P]: read in the source. [C]: as later papers cite it; its source was not read.'
  ]


def test_another_order_fails_and_the_page_says_so_first():
  # By hand: of the six pairs three are as at 60m, and one as at 130m.
  (said,) = (section := made(dict(zip(LABELS, (1.4, 1.3, 1.5, 1.2))), spread=0.2)).first
  assert said.startswith('Order of published runs: FAILED. ')
  assert '+0.00 with 60m' in said and '-0.67 with 130m' in said
  lines = section.markdown().splitlines()
  assert lines.index(f'**{said}**') < next(n for n, x in enumerate(lines) if x[:2] == '| ')
  assert section.tree()['says'] == said


def test_full_must_not_be_shown_to_be_worse():
  bits = dict(zip(LABELS, (1.2, 1.5, 1.3, 1.1)))
  (said,) = made(bits).first
  assert 'FAILED' in said and 'full is shown to be worse than cola' in said
  (said,) = made(bits, spread=0.2).first
  assert 'full is not shown to be worse than any' in said


@pytest.mark.parametrize('missing', LABELS)
def test_without_a_value_nothing_is_known(missing):
  entries = [x for x in made(dict.fromkeys(LABELS, 1.0)).entries if x.label != missing]
  (said,) = gate(entries, LABELS, PUBLISHED, METRIC, 'full')
  assert (
    said == f'Order of published runs: not known, not all seeds have a value of {missing}.'
  )


def test_nothing_is_said_before_all_seeds_have_ended():
  entries = made(dict.fromkeys(LABELS, 1.0)).entries
  to_do = dataclasses.replace(entries[2].runs[0], recorded=None)
  entries[2] = dataclasses.replace(entries[2], runs=(to_do, *entries[2].runs[1:]))
  (said,) = gate(entries, LABELS, PUBLISHED, METRIC, 'full')
  assert said == 'Order of published runs: not known, not all seeds have a value of lora.'


def test_the_published_values_themselves_pass():
  rows = [Row(label, label, {RATE: 0.5}) for label in ORDER]
  first = lambda entries: gate(entries, ORDER, ORDERS, METRIC, 'full')
  table = pair(rows=lambda at: rows, first=first)
  for size, values in ORDERS.items():
    of = lambda run: values[run.label].value + 1e-3 * run.seed  # noqa: B023
    (said,) = Section(plan_of(table, record_all(table, of)), 'pair').first
    # The two orders are not the same, and LOST, LORO and CoLA are before full in both.
    assert f'+1.00 with {size}' in said
    assert 'full is not shown to be worse than any but loro, cola, lost, as ' in said


def test_one_seed_cannot_say_who_is_best():
  entries = made(dict(zip(LABELS, (1.2, 1.5, 1.3, 1.1)))).entries
  entries = [dataclasses.replace(x, runs=x.runs[:1]) for x in entries]
  (said,) = gate(entries, LABELS, PUBLISHED, METRIC, 'full')
  assert 'FAILED' in said  # by tau
  assert 'whether full is the best cannot be said by one seed' in said
  entries = made(dict(zip(LABELS, (1.0, 1.4, 1.2, 1.3)))).entries
  entries = [dataclasses.replace(x, runs=x.runs[:1]) for x in entries]
  (said,) = gate(entries, LABELS, PUBLISHED, METRIC, 'full')
  assert said.startswith('Order of published runs: not known. ')


def test_one_short_row_hides_no_other_that_is_better_than_full():
  entries = made(dict(zip(LABELS, (1.2, 1.5, 1.3, 1.1)))).entries
  entries[2] = dataclasses.replace(entries[2], runs=entries[2].runs[:1])
  (said,) = gate(entries, LABELS, PUBLISHED, METRIC, 'full')
  assert 'FAILED' in said and 'full is shown to be worse than cola' in said


@pytest.mark.parametrize(('label', 'verdict'), [('lora', 'FAILED'), ('low_rank', 'passed')])
@pytest.mark.parametrize('seeds', [1, 3])
def test_a_method_that_diverges_is_the_last(label, verdict, seeds):
  section = made(dict(zip(LABELS, (1.0, 1.4, 1.2, 1.3))))
  entries = [_diverged(x, seeds) if x.label == label else x for x in section.entries]
  (said,) = gate(entries, LABELS, PUBLISHED, METRIC, 'full')
  assert f': {verdict}. ' in said
  assert f'Diverged, and last therefore: {seeds} of {label}. ' in said
  assert f', {label}. [P]' in said
  entries = [_diverged(x, 1) if x.label == 'full' else x for x in section.entries]
  (said,) = gate(entries, LABELS, PUBLISHED, METRIC, 'full')
  assert 'FAILED' in said and 'full diverged' in said


def _diverged(entry, seeds):
  """The entry with so many of its runs without a value."""
  fallen = [
    dataclasses.replace(run, recorded=recorded(run.config, None)) for run in entry.runs
  ]
  return dataclasses.replace(entry, runs=(*fallen[:seeds], *entry.runs[seeds:]))


def test_equal_values_have_no_order():
  (said,) = made(dict.fromkeys(LABELS, 1.0), spread=0.0).first
  assert "FAILED. Kendall's tau undefined, of equal values, with 60m" in said


def test_it_stands_above_proxies_alone():
  section = made(dict.fromkeys(LABELS, 1.0))
  smoke = Section(plan_of(section.table, scale='smoke'), 'pair')
  assert smoke.first == []
