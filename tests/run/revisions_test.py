"""Runs of before the code behind their configs was put right: known, and not taken."""

import dataclasses

import pytest

from elas_jax.config.config import filled
from elas_jax.config.migrate import lifted
from elas_jax.run import record, revisions
from elas_jax.run.record import Record, Recorded, key, read
from tests.run.recorded_runs_test import FIRST, lines, trees


def kinds(tree: dict) -> dict[str, str]:
  """Of a config as it is stored."""
  model, names = tree['model'], ('optimizer', 'schedule')
  return {'linear': model['linear']['kind']} | {x: tree[x]['kind'] for x in names}


def concerned(tree: dict) -> set[str]:
  """Names of revisions, by the kinds that are stored."""
  found, of = kinds(tree), {'loro': 'loro_step', 'galore': 'galore_epsilon'}
  names = {of.get(found['optimizer'])}
  names |= {'relora_restarts'} if found['schedule'] == 'cosine_restarts' else set()
  return (names | ({'lost_columns'} if found['linear'] == 'lost' else set())) - {None}


def test_recorded_runs_of_before_a_revision_are_not_found(tmp_path):
  path, texts = tmp_path / 'runs.jsonl', []
  for number, (line, tree) in enumerate(zip(lines()[:FIRST], trees())):
    if concerned(tree['config']) or number % 10 == 0:
      texts.append(line)
  path.write_bytes(b''.join(texts))
  runs = read(path)
  known, before = Record(runs), 0
  for run in runs:
    own = concerned(run.config)
    assert set(revisions.revisions(run.parsed)) == own
    if not own <= set(run.revisions):
      assert known.find(run.parsed) is None
      found = known.before(run.parsed)
      assert (found.fingerprint, found.config) == (run.fingerprint, run.config)
      before += 1
    else:
      assert known.find(run.parsed) is run and known.before(run.parsed) is None
  assert before == 75


@pytest.fixture
def loro():
  """A recorded config of LORO, with the schedule that it had."""
  configs = (tree['config'] for tree in trees())
  return next(x for x in configs if kinds(x)['optimizer'] == 'loro')


def of_today(tree: dict) -> dict:
  """With LORO's own schedule, as its config files have it now."""
  schedule = tree['schedule'] | {'kind': 'displaced_cosine_restarts'}
  return tree | {'schedule': schedule}


def run_of(tree: dict, *names: str) -> Recorded:
  return Recorded('0' * 12, tree, 'finished', values={'eval/loss': 1.5}, revisions=names)


def test_older_says_what_the_config_of_a_run_was(loro):
  today, before = filled(lifted(of_today(loro))), filled(lifted(loro))
  assert today.schedule != before.schedule and revisions.older(today) == before
  assert revisions.older(before) == before
  # The displacement is younger than the schedule of before, and no part of it.
  own = dataclasses.replace(today.schedule, decay_steps=7)
  assert revisions.older(dataclasses.replace(today, schedule=own)) == before
  # Of an optimiser that nothing was put right of, its schedule neither.
  other = lifted(of_today(loro) | {'optimizer': {'kind': 'adamw'}})
  other = filled(other)
  assert revisions.older(other) is other
  assert revisions.revisions(other) == ()


def test_a_run_of_the_older_schedule_is_one_of_before(loro):
  today, before = filled(lifted(of_today(loro))), filled(lifted(loro))
  old = run_of(loro)
  for config in (today, before):
    known = Record([old])
    assert known.find(config) is None and known.before(config) is old
  # A run with the schedule of today is not one of the config of before.
  new = run_of(of_today(loro), 'loro_step')
  for known in (Record([old, new]), Record([new, old])):
    assert known.find(today) is new and known.before(today) is None
    assert known.find(before) is None and known.before(before) is old


def test_a_run_with_some_of_the_revisions_is_one_of_before(loro):
  config = filled(lifted(loro))
  assert revisions.revisions(config) == ('loro_step', 'relora_restarts')
  some, every = run_of(loro, 'loro_step'), run_of(loro, 'loro_step', 'relora_restarts')
  known = Record([run_of(loro), some])  # the last that was made
  assert known.find(config) is None and known.before(config) is some
  known = Record([some, every])
  assert known.find(config) is every and known.before(config) is None


def test_a_new_revision_takes_no_run_that_it_does_not_concern(loro, monkeypatch):
  simple = next(x['config'] for x in trees() if not concerned(x['config']))
  runs = [run_of(simple), run_of(loro, 'loro_step', 'relora_restarts')]
  configs = [run.parsed for run in runs]
  assert list(map(Record(runs).find, configs)) == runs
  concerns = lambda config: 'Loro' in type(config.optimizer).__name__
  more = revisions.REVISIONS | {'another': revisions.Revision(concerns, 'something')}
  monkeypatch.setattr(revisions, 'REVISIONS', more)
  record.key.cache_clear()
  try:
    known = Record(runs)
    assert known.find(configs[0]) is runs[0] and known.before(configs[0]) is None
    assert known.find(configs[1]) is None and known.before(configs[1]) is runs[1]
    assert key(configs[1], ()) == runs[1].key_without_revisions
  finally:
    record.key.cache_clear()
