"""Rows that start from the run of another row, and looks at runs, as a plan has them."""

import dataclasses
import pathlib

import pytest

from elas_jax.common.errors import UserError
from elas_jax.run.record import Record, append, read
from elas_jax.tables.table import RATE, Look, Row
from tests.tables.fakes import pair, plan_of, record_all, recorded

RUNS = pathlib.Path('runs')
FIRST = Row('first', 'low_rank', {RATE: 1e-3})
SECOND = Row('second', 'low_rank', {RATE: 1e-4}, after=FIRST)
MERGED = Row('merged', 'full', {RATE: 1e-4}, after=FIRST, converter='merge')
LAST = Row('last', 'full', {RATE: 1e-5}, after=MERGED)


def table_of(*rows):
  return pair(rows=lambda at: list(rows), conclude=lambda entries: [])


def test_what_a_row_starts_from_is_made_first_and_for_each_seed():
  table = table_of(LAST, SECOND)
  plan = plan_of(table)
  todo = plan.todo(plan.lines)
  by_label = {}
  for run in todo:
    by_label.setdefault(run.label, []).append(run)
  assert list(by_label) == ['first', 'merged', 'last', 'second']
  assert all([x.seed for x in runs] == [0, 1, 2] for runs in by_label.values())
  # Only those whose start is recorded can be made now.
  assert {run.label for run in todo if run.ready} == {'first'}
  assert len(plan.runs) == 12
  firsts = [recorded(run.config, 2.0) for run in by_label['first']]
  plan = plan_of(table, firsts)
  ready = {run.label for run in plan.todo(plan.lines) if run.ready}
  assert ready == {'merged', 'second'}
  runs = record_all(table, lambda run: 2.0)
  plan = plan_of(table, runs)
  assert not plan.todo(plan.lines) and len(runs) == 12
  assert [line.row.label for line in plan.lines] == ['last', 'second']


def test_a_run_is_another_for_another_start():
  """Though its config says the same: by the run, by its seed, and by the converter."""
  other = dataclasses.replace(FIRST, fields={RATE: 2e-3})
  rows = [
    SECOND,
    dataclasses.replace(SECOND, label='alone', after=None),
    dataclasses.replace(SECOND, label='of another', after=other),
    dataclasses.replace(SECOND, label='made', converter='halve --converter.share=0.5'),
    dataclasses.replace(SECOND, label='made else', converter='halve --converter.share=0.2'),
  ]
  found = [line.runs for line in plan_of(table_of(*rows)).lines]
  keys = {run.key for runs in found for run in runs}
  assert len(keys) == 15
  folders = {run.workdir(RUNS) for runs in found for run in runs}
  assert len(folders) == 15
  start = [runs[0].start(RUNS) for runs in (found[0], *found[2:])]
  assert len({*start}) == 4
  assert start[0] == plan_of(table_of(FIRST)).lines[0].runs[0].workdir(RUNS)
  assert (
    str(start[2]).startswith('runs/converted/') and '/' not in found[3][0].config.restore
  )


def test_where_a_start_diverged_nothing_can_follow():
  table = table_of(LAST)
  plan = plan_of(table)
  runs = [recorded(x.config, None) for x in plan.todo(plan.lines) if x.label == 'first']
  plan = plan_of(table, runs)
  assert plan.todo(plan.lines) == []
  assert {run.status for run in plan.lines[0].runs} == {'not run'}


def test_a_start_whose_rate_is_searched_is_refused():
  bad = Row('bad', 'full', {RATE: 1e-4}, after=Row('low_rank', 'low_rank'))
  with pytest.raises(UserError, match="^row 'bad': starts from 'low_rank', whose fields"):
    _ = plan_of(table_of(bad)).lines


def with_look(row, name='gap'):
  return dataclasses.replace(row, look=Look(name, lambda workdir: {}))


def test_a_run_without_its_look_is_still_to_do(tmp_path):
  table = table_of(with_look(FIRST))
  plan = plan_of(table)
  before = [recorded(run.config, 2.0) for run in plan.todo(plan.lines)]
  plan = plan_of(table, before)
  assert len(plan.todo(plan.lines)) == 3
  assert {run.status for run in plan.lines[0].runs} == {'not run'}
  looked = [
    dataclasses.replace(x, values=x.values | {'gap/bits': 0.25, 'gap/zeros': 0.5})
    for x in before
  ]
  path = tmp_path / 'runs.jsonl'
  for run in (*before, *looked, *before):  # what is known already is not added again
    append(path, run)
  found = read(path)
  assert len(found) == 6
  plan = plan_of(table, found)
  assert not plan.todo(plan.lines)
  assert plan.lines[0].runs[0].values['gap/bits'] == 0.25
  assert Record(found).find(plan.lines[0].runs[0].config).values['eval/loss'] > 0
  # By another name it is another look; a run that diverged has none.
  plan = plan_of(table_of(with_look(FIRST, 'gap_2')), found)
  assert len(plan.todo(plan.lines)) == 3
  plan = plan_of(table, [recorded(x.parsed, None) for x in before])
  assert not plan.todo(plan.lines)
