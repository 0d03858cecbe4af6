"""Every run that is recorded is found by its config, whatever fields come after it."""

import dataclasses
import functools
import importlib
import inspect
import json
import pathlib
import re
import shlex
import shutil

import pytest

from elas_jax.common.errors import UserError
from elas_jax.config.cli import load_config
from elas_jax.config.config import MeshConfig
from elas_jax.config.parsing import parse
from elas_jax.run.continuation import load_past
from elas_jax.systems.feed_forwards.relu2_two_four import TwoFourSquaredReLU
from elas_jax.train import train
from experiments import harness, result_files, revisions, runs, stored_configs
from experiments.runs import Setting
from tests.experiments.fake_runs import PAIR, fake_training, flags_of, result_in
from tests.experiments.younger_fields import CLASSES, PLAIN, one_more_field, remade
from tests.finished_runs import computed
from tests.run.versions_test import FIXTURES, WORKDIRS, assert_recorded

ROOT = pathlib.Path(__file__).parents[2]
RESULTS = ROOT / 'experiments/results'
RECORDS = sorted(RESULTS.glob('*/proxy.json'))


@pytest.fixture
def synthetic():
  """Every section and every kind has a field that no run has heard of."""
  with one_more_field(CLASSES):
    yield


@functools.cache
def stored():
  """Name -> tree, as it was written."""
  lines = (RESULTS / 'configs.jsonl').read_text().splitlines()
  entries = [json.loads(line) for line in lines]
  return {entry['fingerprint']: entry['config'] for entry in entries}


@functools.cache
def entries():
  """Of every results file: its path, (label, size, seed) and what it has of the run."""
  return [
    (path, (row['label'], row['size'], run['seed']), run)
    for path in RECORDS
    for row in json.loads(path.read_text())['rows']
    for run in row['runs']
  ]


def config_of(name):
  return stored_configs.stored(stored()[name])


def check_all_are_found():
  found = {path: result_files.recorded(path) for path in RECORDS}
  keys = {}
  for name in stored():
    config = config_of(name)
    keys[name] = {
      names: stored_configs.key(stored_configs.canonical(config), names)
      for names in {(), tuple(revisions.revisions(config))}
    }
    assert runs.fingerprint(config) in keys[name].values()
  for path, _, run in entries():
    for made in (run, *([run['before']] if 'before' in run else [])):
      key = keys[made['fingerprint']][tuple(made.get('revisions', ()))]
      if made['status'] == 'not run':
        assert key not in found[path]
      else:
        outcome = lambda x: {k: v for k, v in x.items() if k != 'command'}
        assert outcome(found[path][key]) == outcome(made)


def test_every_recorded_run_has_its_config_and_is_found_by_it():
  assert len(entries()) == 1001
  assert sum('before' in run for *_, run in entries()) == 88
  check_all_are_found()


def test_every_recorded_run_is_found_after_one_more_field_of_each_section(synthetic):
  config = config_of(entries()[0][2]['fingerprint'])
  assert config.synthetic == config.model.linear.synthetic == config.mesh.synthetic == 7.0
  check_all_are_found()


def parts_of(config):
  """The sections of a config, itself included."""
  inner = (getattr(config, field.name) for field in dataclasses.fields(config))
  return [config] + [y for x in inner if dataclasses.is_dataclass(x) for y in parts_of(x)]


def a_recorded_config(known, fits):
  configs = ((key, config_of(run['fingerprint'])) for key, run in known.items())
  return next(x for key, x in configs if fits(x) and runs.fingerprint(x) == key)


def test_a_run_with_another_value_of_that_field_is_not_found(synthetic):
  known = result_files.recorded_by_tables(RECORDS[0])
  configs = [config_of(run['fingerprint']) for run in known.values()]
  first = {type(part): x for x in configs for part in parts_of(x)}  # a run that has one
  assert first.keys() >= set(PLAIN) and len(first) > len(PLAIN) + 35

  def other(part, cls):
    if not dataclasses.is_dataclass(part):
      return part
    fields = dataclasses.fields(part)
    new = {x.name: other(getattr(part, x.name), cls) for x in fields}
    new |= {'synthetic': 8.0} if type(part) is cls else {}
    return dataclasses.replace(part, **new)

  for cls, config in first.items():
    if not revisions.revisions(config):
      assert runs.fingerprint(config) in known
    assert runs.fingerprint(other(config, cls)) not in known, cls


@pytest.fixture(
  scope='module',
  params=[
    pytest.param('table1_perplexity', id='one table'),
    pytest.param('*', id='every table', marks=pytest.mark.conformance),
  ],
)
def tables(request, tmp_path_factory):
  """Of results files, their tables and the lines of those.

  Rates of methods that are to be tuned again are those that the tables were made with.
  """
  folder = tmp_path_factory.mktemp('tables')
  rows = json.loads((RESULTS / 'table1_perplexity/proxy.json').read_text())['rows']
  summary = {row['method']: {'learning_rate': row['learning_rate']} for row in rows}
  (folder / 'proxy.json').write_text(json.dumps({'summary': summary}))
  found = []
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(ROOT)
    for path in sorted(RESULTS.glob(f'{request.param}/proxy.json')):
      experiment = importlib.import_module(f'experiments.{path.parent.name}').EXPERIMENT
      rates = RESULTS / experiment.family.rates / 'proxy.json'
      if experiment.family.rates == 'learning_rates' and rates != path:
        rates = folder / 'proxy.json'
      setting = Setting('proxy', (), folder / 'runs', rates, experiment.scales)
      table = harness.Table(experiment, setting, path, range(0), None)
      found.append((table, table.lines()))
  return found


def check_tables(tables, outcome_of):
  assert tables
  for table, lines in tables:
    found = {
      (line.row.label, line.size, run.seed): outcome_of(table, run, outcome)
      for line in lines
      for run, outcome in zip(line.runs, line.outcomes)
    }
    made = {where: run for path, where, run in entries() if path == table.path}
    assert found.keys() == made.keys()
    for where, run in made.items():
      if run['status'] != 'not run':
        assert found[where] == run
      else:
        assert found[where]['before'] == run['before']


def test_tables_find_their_runs_as_they_were_recorded(tables):
  check_tables(tables, lambda table, run, outcome: outcome)


def test_tables_find_them_after_one_more_field_of_each_section(tables, synthetic):
  known = {table.path: result_files.recorded_by_tables(table.path) for table, _ in tables}
  of_file = {
    path: {w: run for other, w, run in entries() if other == path} for path in RECORDS
  }
  where = {
    id(run): (line.row.label, line.size, run.seed)
    for _, lines in tables
    for line in lines
    for run in line.runs
  }

  def outcome_of(table, run, _):
    old = of_file[table.path][where[id(run)]]
    found = runs.outcome(run, known[table.path], old)
    return revisions.with_before(found, old, run.config)

  check_tables(tables, outcome_of)


def test_a_changed_default_changes_no_recorded_run():
  known = result_files.recorded_by_tables(RECORDS[0])
  config = a_recorded_config(
    known, lambda x: isinstance(getattr(x.model, 'feed_forward', 0), TwoFourSquaredReLU)
  )
  field, cls = 'implementation', TwoFourSquaredReLU
  other = dataclasses.replace(config.model.feed_forward, **{field: 'xla'})
  other = dataclasses.replace(
    config, model=dataclasses.replace(config.model, feed_forward=other)
  )
  assert config.model.feed_forward.implementation == 'auto'
  own = inspect.get_annotations(cls)
  with remade(cls, own, **{field: 'xla'}):
    assert cls().implementation == 'xla'
    assert known == result_files.recorded_by_tables(RECORDS[0])
    assert runs.fingerprint(config) in known and runs.fingerprint(other) not in known


def test_no_stored_config_names_a_place_of_a_machine():
  text = (RESULTS / 'configs.jsonl').read_text()
  assert not re.search(r'"(/|~|[^"]*(home|cache|work|tmp)/)', text)
  named = {x['fingerprint'] for *_, run in entries() for x in (run, run.get('before', run))}
  assert stored().keys() == named


@pytest.mark.conformance
def test_an_interrupted_run_is_continued_when_its_config_has_more_fields(
  tmp_path, monkeypatch
):
  calls = fake_training(monkeypatch)
  harness.main(PAIR, flags_of(tmp_path, '--only=one'))
  metrics = calls[0] / 'metrics.jsonl'
  metrics.write_text('\n'.join(metrics.read_text().splitlines()[:2]) + '\n')
  shutil.rmtree(tmp_path / 'results')
  old = sorted(calls[0].parent.iterdir())
  with one_more_field(CLASSES):
    harness.main(PAIR, flags_of(tmp_path, '--only=one'))
    assert calls[1] == calls[0] and sorted(calls[0].parent.iterdir()) == old
    # It is finished, by its folder and by its config, and keeps its name.
    (run,) = result_in(tmp_path)['rows'][0]['runs']
    assert run['status'] == 'finished' and calls[0].name.endswith(run['fingerprint'])
    shutil.rmtree(tmp_path / 'runs')
    harness.main(PAIR, flags_of(tmp_path, '--only=one'))
  assert len(calls) == 2 and result_in(tmp_path)['rows'][0]['runs'] == [run]


@pytest.mark.conformance
def test_a_run_is_continued_where_kinds_had_other_names(tmp_path, monkeypatch):
  calls = fake_training(monkeypatch)
  harness.main(PAIR, flags_of(tmp_path, '--only=two'))
  older = calls[0].with_name('low_rank-relu2-adamw-seed0-0123456789ab')
  calls[0].rename(older)
  shutil.rmtree(tmp_path / 'results')
  (older / 'metrics.jsonl').unlink()
  harness.main(PAIR, flags_of(tmp_path, '--only=two'))
  assert calls[1] == older
  (run,) = result_in(tmp_path)['rows'][1]['runs']
  assert run['status'] == 'finished' and run['fingerprint'] == '0123456789ab'


def test_a_config_of_before_there_were_kinds_is_that_of_today():
  """The command of the fixture in the names of today; its prompt was that of text."""
  words = shlex.split(WORKDIRS['kan_classifier']['command'])
  older = {'optimizer.warmup': 'schedule.warmup', 'eval.tokens': 'eval.units'}
  for old, new in older.items():
    words = [word.replace(old, new) for word in words]
  spec = next(x for x in words if x.startswith('--config=')).removeprefix('--config=')
  flags = [x for x in words if x.startswith('--config.')]
  tree = json.loads((FIXTURES / 'kan_classifier/config.json').read_text())
  today = parse(load_config(str(ROOT / spec.partition(':')[0]) + ':digits,bspline', flags))
  assert stored_configs.stored(tree) == today
  assert tree['eval']['prompt'] == 'def ' and today.eval.prompt == ''


def test_a_folder_of_before_a_revision_is_not_continued(tmp_path, monkeypatch):
  calls = fake_training(monkeypatch)
  with monkeypatch.context() as patch:
    patch.setattr(revisions, 'REVISIONS', {})
    runs.fingerprint.cache_clear()
    harness.main(PAIR, flags_of(tmp_path))
  runs.fingerprint.cache_clear()
  harness.main(PAIR, flags_of(tmp_path))
  assert len(calls) == 3  # LORO, AdamW, LORO as it is now
  names = [call.name.rpartition('-')[0] for call in calls]
  assert names[2] == f'{names[0]}-loro_step'


def test_a_torn_last_line_is_dropped_and_written_anew(tmp_path, monkeypatch, capsys):
  calls = fake_training(monkeypatch)
  harness.main(PAIR, flags_of(tmp_path))
  path = tmp_path / 'results/configs.jsonl'
  whole = path.read_text()
  path.write_text(whole[:-20])
  harness.main(PAIR, flags_of(tmp_path))  # both are in their folders
  assert path.read_text() == whole and len(calls) == 2
  assert f'{path}: its last line was cut short and is dropped' in capsys.readouterr().err
  path.write_text('{"fingerprint": "a"}\n' + whole)
  with pytest.raises(UserError, match='configs.jsonl:1: is no line of a run'):
    harness.main(PAIR, flags_of(tmp_path))


def test_results_that_nothing_recognises_are_not_written_over(tmp_path, monkeypatch):
  calls = fake_training(monkeypatch)
  harness.main(PAIR, flags_of(tmp_path))
  results = tmp_path / 'results'
  (results / 'configs.jsonl').unlink()
  before = (results / 'pair/smoke.json').read_text()
  with pytest.raises(UserError, match=r"of 2 runs, \('one', 'smoke', 0\) the first"):
    harness.main(PAIR, flags_of(tmp_path, f'--runs={tmp_path / "clone"}'))
  assert (results / 'pair/smoke.json').read_text() == before and len(calls) == 2
  harness.main(PAIR, flags_of(tmp_path))  # by their folders; and their lines are back
  harness.main(PAIR, flags_of(tmp_path, f'--runs={tmp_path / "clone"}'))
  assert len(calls) == 2


@pytest.mark.conformance
@pytest.mark.usefixtures('four_devices')
def test_an_older_workdir_continues_bit_for_bit_with_more_fields(tmp_path, monkeypatch):
  shutil.copytree(FIXTURES / 'kan_classifier', tmp_path / 'kan_classifier')
  monkeypatch.chdir(tmp_path)
  # All but the mesh, whose fields are the axes of the devices.
  with one_more_field([cls for cls in CLASSES if cls is not MeshConfig]):
    config = load_past('kan_classifier', '--workdir').parsed
    assert config.data.synthetic == config.model.linear.synthetic == 7.0
    other = dataclasses.replace(config.optimizer, synthetic=8.0)
    other = dataclasses.replace(config, optimizer=other)
    words = 'optimizer.synthetic=8.0: .* was started with 7.0'
    with pytest.raises(UserError, match=words):
      train(other, pathlib.Path('kan_classifier'))
    train(config, pathlib.Path('kan_classifier'))
  lines = [x for x in computed('kan_classifier') if x['step'] > 6 and 'train/loss' in x]
  losses = {str(x['step']): x['train/loss'] for x in lines}
  expected = WORKDIRS['kan_classifier']['in_tests']['losses']
  assert_recorded('kan_classifier', losses, expected)
