"""Runs of before a revision: kept, but neither shown, nor reused, nor chosen by."""

import json

import pytest

from experiments import harness, learning_rates, rates, revisions, runs
from experiments.runs import Setting
from tests.experiments.fake_runs import PAIR, fake_training, flags_of


@pytest.fixture
def calls(monkeypatch):
  return fake_training(monkeypatch)


def test_runs_of_before_a_revision_are_kept_but_neither_shown_nor_reused(
  calls, tmp_path, monkeypatch
):
  path = tmp_path / 'results/pair/smoke.json'
  with monkeypatch.context() as patch:  # the code of before: it knew of no revision
    patch.setattr(revisions, 'REVISIONS', {})
    runs.fingerprint.cache_clear()
    harness.main(PAIR, flags_of(tmp_path))
  runs.fingerprint.cache_clear()
  old, other = (row['runs'][0] for row in json.loads(path.read_text())['rows'][:2])
  assert old['status'] == 'finished' and 'revisions' not in old and len(calls) == 2
  shown = f'{old["values"]["eval/bits_per_byte"]:.4f}'
  assert f'| one | {shown} |' in path.with_suffix('.md').read_text()

  # A call that makes another row, where the old folders are too, writes the table anew.
  for _ in range(2):
    harness.main(PAIR, flags_of(tmp_path, '--only=two', '--seeds=2'))
    one, two = json.loads(path.read_text())['rows'][:2]
    assert one['runs'][0]['status'] == 'not run'
    assert one['runs'][0]['lacks'] == ['loro_step'] and one['runs'][0]['before'] == old
    assert one['mean'] == {} and two['runs'][0] == other
    text = path.with_suffix('.md').read_text()
    assert (
      '| one | - |' in text and 'Not shown until they are made again: runs of o' in text
    )
    assert 'one - two (smoke): not known' in text
  assert len(calls) == 3  # seed 1 of row two

  harness.main(PAIR, flags_of(tmp_path, '--seeds=2'))
  assert len(calls) == 5
  one = json.loads(path.read_text())['rows'][0]['runs']
  assert [run['status'] for run in one] == ['finished'] * 2
  assert all(run['revisions'] == ['loro_step'] for run in one)
  assert not any('before' in run for run in one)
  text = path.with_suffix('.md').read_text()
  assert 'Not shown' not in text and '| one | - |' not in text
  harness.main(PAIR, flags_of(tmp_path, f'--runs={tmp_path / "clone"}', '--seeds=2'))
  assert len(calls) == 5  # what was made since is taken from the file


def test_a_grid_stays_while_its_runs_are_to_be_made_again(calls, tmp_path, monkeypatch):
  monkeypatch.setattr(rates, 'BASE', {'elas': 8e-3})
  monkeypatch.setattr(learning_rates, 'BASE', {'elas': 8e-3})
  with monkeypatch.context() as patch:
    patch.setattr(revisions, 'REVISIONS', {})
    runs.fingerprint.cache_clear()
    harness.main(learning_rates.EXPERIMENT, flags_of(tmp_path))
  runs.fingerprint.cache_clear()
  assert len(calls) == 5
  path = tmp_path / 'results/learning_rates/smoke.json'
  setting = Setting('smoke', tuple(flags_of(tmp_path)[3:]), tmp_path / 'runs', path)
  assert len(learning_rates.rows(setting, 'smoke')) == 5
  # But no rate is chosen by them.
  table = harness.Table(learning_rates.EXPERIMENT, setting, path, range(1000, 1001), None)
  assert harness._result(table, table.lines())['summary'] == {}
