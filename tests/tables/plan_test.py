"""Which runs a table is made of: searches, rates, seeds, overrides, runs of before."""

import dataclasses

import pytest

from elas_jax.common.errors import UserError
from elas_jax.run.record import Record
from elas_jax.tables.entries import of_line
from elas_jax.tables.render import Section
from elas_jax.tables.site.table_page import _searches
from elas_jax.tables.table import RATE, Rates, Row
from experiments.language import METRICS
from tests.tables.fakes import SCALES, pair, plan_of, record_all, recorded

LADDER = tuple(2e-3 * 2.0**k for k in range(-3, 4))


def at_rate(run):
  return run.config.optimizer.learning_rate


def test_searches_come_first_and_rows_take_the_best_rate():
  table = pair()
  plan = plan_of(table)
  todo = plan.todo(plan.lines)
  # Three rates for each, and no row: their rates are not known yet.
  assert [run.label for run in todo] == [
    *(f'low_rank at {x}' for x in ('0.001', '0.002', '0.004')),
    *(f'full at {x}' for x in ('0.0005', '0.001', '0.002')),
  ]
  assert {run.seed for run in todo} == {1000}
  assert {run.config.train.steps for run in todo} == {250}
  assert {run.config.eval.every for run in todo} == {250}
  assert all(line.runs == () for line in plan.lines)
  runs = [recorded(run.config, 2 + abs(at_rate(run) - 2e-3)) for run in todo[:3]]
  runs += [recorded(run.config, 2 + abs(at_rate(run) - 1e-3)) for run in todo[3:]]
  plan = plan_of(table, runs)
  todo = plan.todo(plan.lines)
  assert [(run.label, run.seed) for run in todo] == [
    (label, seed) for label in ('one', 'two') for seed in (0, 1, 2)
  ]
  assert [at_rate(run) for run in todo] == [2e-3] * 3 + [1e-3] * 3
  assert {run.config.train.steps for run in todo} == {500}
  assert not any(line.search.at_the_edge for line in plan.lines)


@pytest.mark.parametrize(
  ('best', 'tried', 'at_the_edge'),
  [
    (2e-3, LADDER[2:5], False),
    (1e-3, LADDER[1:5], False),  # one more below, which is worse
    (4e-3, LADDER[2:6], False),
    (2.5e-4, LADDER[:5], True),  # the end of the ladder
    (1.6e-2, LADDER[2:], True),
  ],
)
def test_a_grid_grows_until_its_best_is_inside_or_the_ladder_ends(best, tried, at_the_edge):
  one = pair(rows=lambda at: [Row('one', 'low_rank')])
  runs = record_all(one, lambda run: 2 + abs(at_rate(run) - best))
  (line,) = plan_of(one, runs).lines
  assert tuple(line.search.grid) == pytest.approx(tried)
  assert line.search.best == pytest.approx(best)
  assert line.search.at_the_edge == at_the_edge
  assert {at_rate(run) for run in line.runs} == {line.search.best}


def test_rows_that_are_made_stay_while_their_grid_grows():
  """Another rate is to be tried: until it is, the rows are those of the best so far."""
  one = pair(rows=lambda at: [Row('one', 'low_rank')])
  runs = record_all(one, lambda run: 2 + abs(at_rate(run) - LADDER[-1]))
  known = [run for run in runs if run.parsed.optimizer.learning_rate != LADDER[-1]]
  plan = plan_of(one, known)
  rows = [run.config for run in plan.lines[0].runs]
  assert {config.optimizer.learning_rate for config in rows} == {LADDER[-2]}
  plan = plan_of(one, [*known, *(recorded(config, 2.0) for config in rows)])
  (line,) = plan.lines
  assert [run.status for run in line.runs] == ['finished'] * 3
  assert line.search.best is None and line.search.at_the_edge
  assert [run.label for run in plan.todo(plan.lines)] == ['low_rank at 0.016']


def test_equal_scores_take_the_lower_rate_and_diverged_ones_none():
  one = pair(rows=lambda at: [Row('one', 'low_rank')])
  runs = record_all(one, lambda run: None if at_rate(run) > 3e-3 else 2.0)
  (line,) = plan_of(one, runs).lines
  assert line.search.best == pytest.approx(LADDER[0]) and line.search.at_the_edge


def test_where_all_rates_diverge_lower_ones_are_tried():
  one = pair(rows=lambda at: [Row('one', 'low_rank')])
  runs = record_all(one, lambda run: None)
  (line,) = plan_of(one, runs).lines
  assert tuple(line.search.grid) == pytest.approx(LADDER[:5])
  assert line.search.best is None and line.runs == () and line.search.diverged
  entry = of_line(line)
  assert entry.non_finite == 'diverges at every rate of its grid'
  runs = record_all(one, lambda run: None if at_rate(run) > 6e-4 else 2.0)
  (line,) = plan_of(one, runs).lines
  assert line.search.best == pytest.approx(2.5e-4) and not line.search.diverged


def test_a_rate_that_was_tried_stays_in_the_grid():
  """Also where the best of the first rates is inside of them."""
  one = pair(rows=lambda at: [Row('one', 'low_rank')])
  ends = {LADDER[0]: 1.0, LADDER[2]: 2.5, LADDER[3]: 2.0, LADDER[4]: 2.5}
  (line,) = plan_of(one).lines
  runs = [
    recorded(dataclasses.replace(run.config, optimizer=optimizer), bits)
    for run in list(line.search.grid.values())[:1]
    for rate, bits in ends.items()
    for optimizer in [dataclasses.replace(run.config.optimizer, learning_rate=rate)]
  ]
  (line,) = plan_of(one, runs).lines
  assert line.search.best == LADDER[0] and line.search.at_the_edge


def test_a_score_that_is_missing_is_named():
  one = pair(rows=lambda at: [Row('one', 'low_rank')])
  plan = plan_of(one)
  runs = [recorded(run.config, 2.0) for run in plan.todo(plan.lines)]
  runs[1] = dataclasses.replace(runs[1], values={'eval/loss': 1.0})
  with pytest.raises(UserError, match=f'{runs[1].fingerprint} of the record has no eval/b'):
    _ = plan_of(one, runs).lines


@pytest.mark.parametrize('labels', [('a', 'a'), ('a,b',), ('a|b',), ('',)])
def test_labels_that_cannot_be_told_apart_are_refused(labels):
  table = pair(rows=lambda at: [Row(label, 'full', {RATE: 0.5}) for label in labels])
  with pytest.raises(UserError, match='a label must be one of a kind, not empty'):
    _ = plan_of(table).lines


def test_two_searches_under_one_label_are_refused():
  other = Row('cola', 'cola', {'model.layers': 2})
  rows = [Row('a', 'cola'), Row('b', 'cola', rate_of=other)]
  with pytest.raises(UserError, match='cola: two rows are searched under this label'):
    _ = plan_of(pair(rows=lambda at: rows)).lines


def test_runs_of_before_a_revision_keep_the_grid_but_choose_nothing():
  one = pair(rows=lambda at: [Row('one', 'galore')])
  whole = record_all(one, lambda run: 2 + abs(at_rate(run) - 8e-3))
  old = [dataclasses.replace(run, revisions=()) for run in whole]
  plan = plan_of(one, old)
  (line,) = plan.lines
  assert tuple(line.search.grid) == tuple(plan_of(one, whole).lines[0].search.grid)
  assert line.search.best is None and line.search.likely == pytest.approx(8e-3)
  assert [run.status for run in line.runs] == ['not run'] * 3
  assert all(run.before and run.lacks == ['galore_epsilon'] for run in line.runs)
  assert not any(run.values for run in line.runs)
  # The search is made again first; the rows wait for it.
  assert plan.todo(plan.lines) == list(line.search.grid.values())


def test_a_row_takes_the_rate_of_another_or_has_its_own():
  rows = [
    Row('one', 'cola'),
    Row('other', 'cola_m', rate_of=Row('cola', 'cola')),
    Row('own', 'cola', {RATE: 0.5}),
  ]
  table = pair(rows=lambda at: rows, conclude=lambda entries: [])
  runs = record_all(table, lambda run: 2 + abs(at_rate(run) - 2e-3))
  plan = plan_of(table, runs)
  assert [search.row.label for search in plan.searches] == ['cola']
  assert [at_rate(line.runs[0]) for line in plan.lines] == [2e-3, 2e-3, 0.5]
  assert plan.lines[2].search is None


def test_rows_that_are_one_run_are_made_once():
  rows = [Row('a', 'low_rank', {RATE: 0.5}), Row('b', 'low_rank', {RATE: 0.5})]
  plan = plan_of(pair(rows=lambda at: rows))
  assert [run.label for run in plan.todo(plan.lines)] == ['a'] * 3
  runs = [recorded(run.config, 2.0) for run in plan.todo(plan.lines)]
  lines = plan_of(pair(rows=lambda at: rows), runs).lines
  assert [run.status for line in lines for run in line.runs] == ['finished'] * 6


def test_a_smoke_run_and_a_given_rate_search_nothing():
  plan = plan_of(pair(), scale='smoke')
  assert plan.searches == []
  assert [at_rate(run) for run in plan.todo(plan.lines)] == [4e-3, 4e-3]
  plan = plan_of(pair(), overrides=[f'--config.{RATE}=0.25'])
  assert plan.searches == []
  assert {at_rate(run) for run in plan.todo(plan.lines)} == {0.25}
  assert plan_of(pair(), scale='paper').searches == []


def test_overrides_reach_the_rows_that_have_the_field():
  some = ('optimizer.exact_every=3', 'model.feed_forward.dense_steps=2')
  flags = [f'--config.{x}' for x in some]
  table = pair(rows=lambda at: [Row('elas', 'elas'), Row('control', 'low_rank_relu2')])
  plan = plan_of(table, scale='smoke', overrides=flags)
  elas, control = (line.runs[0].config for line in plan.lines)
  assert elas.optimizer.exact_every == 3
  assert elas.model.feed_forward.dense_steps == 2
  # The scale's: AdamW has no restarts.
  assert elas.schedule.restart_warmup_steps == 1
  plan.check()
  plan = plan_of(table, scale='smoke', overrides=['--config.optimizer.rank=4'])
  with pytest.raises(UserError, match='rank=4: a field of kinds that no row of this'):
    plan.check()
  own = pair(rows=lambda at: [Row('one', 'low_rank', {'model.layers': 2})])
  with pytest.raises(UserError, match='layers=3: this table sets model.layers itself'):
    _ = plan_of(own, scale='smoke', overrides=['--config.model.layers=3']).lines


def test_more_seeds_and_only_some_lines():
  plan = plan_of(pair(), scale='smoke', seeds=2)
  assert [run.seed for run in plan.todo(plan.lines)] == [0, 1, 0, 1]
  assert [run.label for run in plan.todo(plan.lines[1:])] == ['two', 'two']
  first = pair(first_seed=10)
  assert [run.seed for run in plan_of(first, scale='smoke').lines[0].runs] == [10]
  plan = plan_of(pair())
  assert [run.label[:4] for run in plan.todo(plan.lines[1:])] == ['full'] * 3


def test_searches_of_other_sizes_are_one():
  rates = Rates(lambda method: LADDER, slice(0, 2), METRICS[0], size=lambda size: '60m')
  proxy = dataclasses.replace(SCALES['proxy'], sizes=('60m', '130m'), rates=rates)
  proxy = dataclasses.replace(proxy, config='configs/c4.py:{size},{method}', fields={})
  plan = plan_of(pair(scales={'proxy': proxy}))
  assert [search.row.label for search in plan.searches] == ['low_rank', 'full']
  assert {run.size for run in plan.todo(plan.lines)} == {'60m'}


def test_a_size_may_be_searched_by_another_metric():
  """The highest instead of the lowest there, from other rates; one rate needs no search."""
  metric = ('eval/perplexity', 'perplexity', 2)
  ladder = lambda method: LADDER if method == 'full' else (5e-3,)
  there = Rates(ladder, slice(3, 6), metric, best=max)
  rates = Rates(lambda method: LADDER, slice(0, 3), METRICS[0], others={'130m': there})
  proxy = dataclasses.replace(SCALES['proxy'], sizes=('60m', '130m'), rates=rates)
  proxy = dataclasses.replace(proxy, config='configs/c4.py:{size},{method}', fields={})
  table = pair(scales={'proxy': proxy})
  plan = plan_of(table)
  assert [(x.size, x.row.label) for x in plan.searches] == [
    ('60m', 'low_rank'),
    ('60m', 'full'),
    ('130m', 'full'),
  ]
  runs = record_all(table, lambda run: 2 + abs(at_rate(run) - LADDER[1]))
  grids = [tuple(x.grid) for x in plan_of(table, runs).searches]
  assert grids == [LADDER[:3], LADDER[:3], LADDER[3:]]  # it goes on to what is highest
  lines = plan_of(table, runs).lines
  chosen = [at_rate(x.runs[0]) for x in lines]
  assert chosen == [LADDER[1], LADDER[1], 5e-3, LADDER[-1]]
  assert [x.search.at_the_edge for x in lines] == [False, False, False, True]
  section = Section(plan_of(table, runs), 'pair')
  text = section.markdown()
  assert f'may lie beyond: full on 130m ({LADDER[-1]:g}).' in text
  assert (
    '60m: 50 % of the steps, seed 1000; the lowest bits per byte is taken. '
    '130m: 50 % of the steps, seed 1000; the highest perplexity is taken.'
  ) in text
  page = str(_searches(section, ''))
  for size, word in (('60m', 'lowest bits per byte'), ('130m', 'highest perplexity')):
    assert f'{size}: 50 % of the steps, seed 1000; the {word} is taken.' in page
    assert f'{size}: what each search saw' in page


def test_a_record_counts_the_last_of_a_run():
  config = plan_of(pair(), scale='smoke').lines[0].runs[0].config
  record = Record([recorded(config, 2.0), recorded(config, 3.0)])
  assert record.find(config).values['eval/bits_per_byte'] == 3.0
  assert record.before(config) is None
