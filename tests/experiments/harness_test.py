"""The experiment harness: which runs a table needs, resumption, rendering, choices."""

import dataclasses
import json
import math
import pathlib
import shlex

import pytest

from elas_jax import train as train_module
from elas_jax.common.errors import UserError
from elas_jax.config.cli import load_config, run_command
from elas_jax.config.config import to_json
from elas_jax.config.parsing import parse
from experiments import (
  ablation_controls,
  backward_recipes,
  harness,
  learning_rates,
  notes,
  rates,
  report,
  runs,
  table1_perplexity,
  table4_warmup,
  table5_rules,
)
from experiments.runs import Row
from tests.conftest import thinned
from tests.experiments.fake_runs import (
  PAIR,
  fake_training,
  flags_of,
  result_in,
  setting_of,
)


@pytest.fixture
def calls(monkeypatch):
  return fake_training(monkeypatch)


def workdir(experiment, label, folder, seed=0):
  setting = setting_of(folder)
  (row,) = [r for r in experiment.rows(setting, 'smoke') if r.label == label]
  return setting.run(row, 'smoke', seed).workdir


def test_tables_share_runs_and_seeds_do_not(tmp_path):
  same = {
    workdir(table1_perplexity.EXPERIMENT, 'elas', tmp_path),
    workdir(table4_warmup.EXPERIMENT, 'dense_1/10', tmp_path),
    workdir(table5_rules.EXPERIMENT, 'top2', tmp_path),
    workdir(backward_recipes.EXPERIMENT, 'exact', tmp_path),
    workdir(ablation_controls.EXPERIMENT, 'elas', tmp_path),
  }
  assert len(same) == 1
  assert workdir(table1_perplexity.EXPERIMENT, 'elas', tmp_path, seed=1) not in same
  assert workdir(table5_rules.EXPERIMENT, 'mvue', tmp_path) not in same


def test_fingerprint_leaves_the_machine_out(make_config):
  config = make_config()
  base = runs.fingerprint(config)
  other = dataclasses.replace(config.data, cache_dir='elsewhere', prefetch=3)
  assert runs.fingerprint(dataclasses.replace(config, data=other)) == base
  other = dataclasses.replace(config.data, batch_size=4)
  assert runs.fingerprint(dataclasses.replace(config, data=other)) != base


@pytest.mark.parametrize('scale', runs.SCALES)
@pytest.mark.parametrize(
  'module',
  [table1_perplexity, table4_warmup, table5_rules, backward_recipes, ablation_controls],
)
def test_every_run_of_every_table_has_a_config_that_can_run(module, scale, tmp_path):
  experiment, setting = module.EXPERIMENT, setting_of(tmp_path, scale=scale)
  chosen = {method: {'learning_rate': 0.5} for method in rates.BASE}
  setting.rates.write_text(json.dumps({'summary': chosen}))
  for size in experiment.sizes(scale)[:1]:
    rows = experiment.rows(setting, size)
    assert len({row.label for row in rows}) == len(rows)
    for row in rows:
      if not row.problem:
        run = setting.run(row, size, 2)
        assert run.config.seed == 2
        assert (run.config.optimizer.learning_rate == 0.5) == (scale == 'proxy')


def test_finished_runs_are_skipped(calls, tmp_path, capsys):
  harness.main(PAIR, flags_of(tmp_path, '--only=one'))
  assert len(calls) == 1
  assert not result_in(tmp_path)['complete']
  harness.main(PAIR, flags_of(tmp_path, '--seeds=2'))
  assert len(calls) == len(set(calls)) == 4
  assert 'run 1 of 3: one, smoke, seed 1' in capsys.readouterr().out
  harness.main(PAIR, flags_of(tmp_path, '--seeds=2'))
  assert len(calls) == 4
  result = result_in(tmp_path)
  assert result['complete']
  (found,) = result['summary']
  assert found['seeds'] == [0, 1]
  assert found['mean']['eval/bits_per_byte'] == pytest.approx(-0.1)
  assert result['rows'][2]['problem'] == 'cannot be run'
  command = result['rows'][0]['runs'][0]['command']
  assert f'--workdir=runs/experiments/smoke/{calls[0].name}' in command
  assert '--config.seed=0' in command
  others = [flag for flag in flags_of(tmp_path)[1:] if flag.startswith('--config')]
  whole = shlex.join(['--scale=smoke', *others, '--seeds=2'])
  assert result['command'] == f'python -m experiments.pair {whole}'
  assert str(tmp_path / 'runs') not in json.dumps(result)


def test_a_clone_without_runs_keeps_the_results(calls, tmp_path, capsys):
  harness.main(PAIR, flags_of(tmp_path, '--seeds=2', '--only=one'))
  path = tmp_path / 'results/pair/smoke.json'
  before = path.stat().st_mtime_ns
  clone = f'--runs={tmp_path / "clone"}'
  harness.main(PAIR, flags_of(tmp_path, clone, '--only=one'))
  assert path.stat().st_mtime_ns == before and len(calls) == 2
  assert 'all runs are done already' in capsys.readouterr().out
  with pytest.raises(UserError, match='no row'):
    harness.main(PAIR, flags_of(tmp_path, clone, '--only=four'))
  assert path.stat().st_mtime_ns == before
  harness.main(PAIR, flags_of(tmp_path, clone))  # of one seed: the other is not dropped
  status = lambda i: [r['status'] for r in result_in(tmp_path)['rows'][i]['runs']]
  assert len(calls) == 3 and status(0) == ['finished'] * 2
  assert status(1) == ['finished', 'not run']
  # What was recorded of another config is not taken for this one.
  configs = tmp_path / 'results/configs.jsonl'
  configs.write_text(configs.read_text().replace('"layers":2', '"layers":3'))
  harness.main(PAIR, flags_of(tmp_path, f'--runs={tmp_path / "other"}'))
  assert len(calls) == 5


def test_a_table_takes_the_runs_that_another_has_recorded(calls, tmp_path):
  harness.main(PAIR, flags_of(tmp_path, '--only=one'))
  rows = lambda setting, size: [Row('same', 'elas'), Row('more', 'loro_relu2')]
  other = dataclasses.replace(PAIR, name='other', rows=rows, conclude=harness.nothing)
  harness.main(other, flags_of(tmp_path, f'--runs={tmp_path / "clone"}'))
  assert len(calls) == 2  # one of each table
  same, more = (row['runs'][0] for row in result_in(tmp_path, 'other')['rows'])
  assert same['status'] == more['status'] == 'finished'


def test_calls_at_the_same_time_do_not_undo_each_other(calls, tmp_path, monkeypatch):
  first = runs.train

  def train(config, workdir):  # while a run of row one is trained, all of two finishes
    monkeypatch.setattr(runs, 'train', first)
    harness.main(
      PAIR, flags_of(tmp_path, f'--runs={tmp_path}/b', '--only=two', '--seeds=2')
    )
    first(config, workdir)

  monkeypatch.setattr(runs, 'train', train)
  harness.main(PAIR, flags_of(tmp_path, '--only=one'))
  rows = result_in(tmp_path)['rows'][:2]
  statuses = [[run['status'] for run in row['runs']] for row in rows]
  assert statuses == [['finished', 'not run'], ['finished', 'finished']]


@pytest.mark.parametrize(
  'damage', thinned(['metrics', 'config', 'no evaluation'], 'no evaluation')
)
def test_an_incomplete_run_is_trained_again(calls, tmp_path, damage):
  harness.main(PAIR, flags_of(tmp_path, '--only=one'))
  (tmp_path / 'results/pair/smoke.json').unlink()  # else it is done, by this file
  path = calls[0] / ('config.json' if damage == 'config' else 'metrics.jsonl')
  if damage == 'metrics':
    path.unlink()
  elif damage == 'config':
    path.write_text(path.read_text().replace('"rank": 8', '"rank": 4'))
  else:
    path.write_text('\n'.join(path.read_text().splitlines()[:2]) + '\n')
  harness.main(PAIR, flags_of(tmp_path, '--only=one'))
  assert calls[0] == calls[1]


def test_a_diverged_run_is_recorded_and_not_tried_again(monkeypatch, tmp_path):
  tries, words = [], 'training diverged at step 7: loss=nan, grad_norm=1.0; no checkpoint'

  def diverge(config, workdir):
    tries.append(workdir)
    workdir.mkdir(parents=True)
    (workdir / 'config.json').write_text(to_json(config))
    raise UserError(words)

  monkeypatch.setattr(runs, 'train', diverge)
  for _ in range(2):
    harness.main(PAIR, flags_of(tmp_path))
  assert len(tries) == 2  # one of each row
  result = result_in(tmp_path)
  assert result['complete']
  assert result['rows'][0]['runs'][0]['step'] == 7
  assert '| seed 0 at step 7 |' in report.markdown(result)
  words = 'no space left'  # other errors are not divergences
  with pytest.raises(UserError, match=words):
    harness.main(PAIR, flags_of(tmp_path, '--seeds=2'))


@pytest.mark.conformance
def test_a_stopped_run_is_continued(monkeypatch, corpus, tmp_path, capsys):
  class Stop:
    def __enter__(self):
      return lambda step: step == 6

    def __exit__(self, *error):
      pass

  with monkeypatch.context() as patch:
    patch.setattr(train_module, 'stop_signals', Stop)
    with pytest.raises(UserError, match='the same command continues'):
      harness.main(PAIR, flags_of(tmp_path, '--only=two'))
  assert [r['status'] for r in result_in(tmp_path)['rows'][1]['runs']] == ['not run']
  capsys.readouterr()
  harness.main(PAIR, flags_of(tmp_path, '--only=two'))
  assert 'continuing after step 6' in capsys.readouterr().out
  result = result_in(tmp_path)
  (run,) = result['rows'][1]['runs']
  assert run['status'] == 'finished'
  assert run['values'].keys() >= {'activations/dropped_mass', 'eval/published_perplexity'}
  assert 'activations/dropped_mass/0' not in run['values']
  assert (tmp_path / 'results/pair/smoke.png').stat().st_size > 1000


@pytest.mark.parametrize(
  'flags, words',
  [
    (['--scale=huge'], '--scale=huge: must be one of smoke, proxy, paper'),
    (['--only=one,four'], "no row 'four'; there are elas, low_rank_relu2, one"),
    (['--seeds=0'], "--seeds: '0': must be an integer from 1 to 10000"),
    ([f'--seeds={10**30}'], ': must be an integer from 1 to 10000'),
    (['--config.model.rnak=3'], 'did you mean model.linear.rank'),
    (['--config.seed=3'], '--config.seed=3: this table sets seed itself'),
    (['--config.optimizer.rank=4'], 'rank=4: a field of kinds that no row of this'),
    (['--scale=proxy'], 'first run python -m experiments.learning_rates --scale=proxy'),
  ],
)
def test_a_bad_command_line_is_one_line(flags, words, calls, tmp_path, capsys):
  with pytest.raises(SystemExit) as end:
    run_command(lambda: harness.main(PAIR, flags_of(tmp_path, *flags)))
  assert end.value.code == 2
  error = capsys.readouterr().err
  assert words in error
  assert error.count('\n') == 1
  assert not calls


def test_fields_that_only_some_rows_have_are_set_there(calls, tmp_path):
  some = {'optimizer.exact_every': 3, 'model.feed_forward.dense_steps': 2}
  given = [f'--config.{name}={value}' for name, value in some.items()]
  elas, control = (
    setting_of(tmp_path, *given).run(Row(name, name), 'smoke', 0)
    for name in ('elas', 'low_rank_relu2')
  )
  assert elas.config.optimizer.exact_every == 3
  assert elas.config.model.feed_forward.dense_steps == 2
  assert set(given) <= set(elas.flags) and not set(given) & set(control.flags)
  # The scale's: LORO has no weight decay, AdamW no restarts.
  decay, restart = 'optimizer.weight_decay', 'schedule.restart_warmup_steps'
  names = [
    [x for x in (decay, restart) if any(f'--config.{x}=' in flag for flag in run.flags)]
    for run in (elas, control)
  ]
  assert names == [[restart], [decay]]
  assert control.config.optimizer.weight_decay == 0.1
  # Each command says all that its config is.
  for run in (elas, control):
    assert parse(load_config(run.spec, run.flags)) == run.config


def test_every_field_of_a_scale_is_of_some_row(tmp_path):
  for scale in ('smoke', 'proxy'):
    setting = setting_of(tmp_path, f'--config.{rates.RATE}=0.5', scale=scale)
    rows = table1_perplexity.rows(setting, scale)
    flags = {flag for row in rows for flag in setting.run(row, scale, 0).flags}
    for name, value in runs.SCALES[scale].fields_of_kinds.items():
      assert f'--config.{name}={value}' in flags


def test_results_of_other_overrides_are_not_written_over(calls, tmp_path):
  harness.main(PAIR, flags_of(tmp_path))
  with pytest.raises(UserError, match='other overrides.*--results=DIR'):
    harness.main(PAIR, flags_of(tmp_path, '--config.model.layers=1'))


def test_smoke_results_are_not_among_the_results(calls, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'configs').symlink_to(pathlib.Path(runs.__file__).parents[1] / 'configs')
  harness.main(PAIR, ['--scale=smoke'])
  assert (tmp_path / 'runs/experiments/smoke/results/pair/smoke.md').exists()
  assert not (tmp_path / 'experiments').exists()


def test_rate_is_that_of_the_lowest_bits(tmp_path):
  def entry(method, rate, bits, status='finished'):
    runs = [{'status': status}]
    mean = {'eval/bits_per_byte': bits} if status == 'finished' else {}
    fields = {'optimizer.learning_rate': rate}
    return {'method': method, 'fields': fields, 'runs': runs, 'mean': mean}

  grid = [entry('cola', 1e-3, 2.5), entry('cola', 2e-3, 2.4), entry('cola', 4e-3, 2.6)]
  edge = [entry('elas', 1e-3, 2.5), entry('elas', 2e-3, 0, 'diverged')]
  unknown = [entry('loro', 1e-3, 2.5), entry('loro', 2e-3, 0, 'not run')]
  chosen, lines = learning_rates.conclude(grid + edge + unknown)
  assert chosen == {
    'cola': {'learning_rate': 2e-3, 'at_the_edge_of_the_grid': False},
    'elas': {'learning_rate': 1e-3, 'at_the_edge_of_the_grid': True},
  }
  assert lines == ['cola: 0.002', 'elas: 0.001, at the edge of the grid']
  path = tmp_path / 'proxy.json'
  path.write_text(json.dumps({'summary': chosen}))
  assert rates.chosen_rate('cola_m', path) == 2e-3
  with pytest.raises(UserError, match='no learning rate of loro; first run python -m'):
    rates.chosen_rate('loro', path)


def test_learning_rates_are_tried_on_half_of_the_steps(tmp_path):
  setting = setting_of(tmp_path, scale='proxy')  # no file of rates is needed
  rows = learning_rates.rows(setting, 'proxy')
  assert len(rows) == 3 * len(rates.BASE)
  tried = [row.fields['optimizer.learning_rate'] for row in rows if row.method == 'elas']
  assert tried == [4e-3, 8e-3, 16e-3]
  configs = [setting.run(row, 'proxy', 0).config for row in rows]
  assert 'R 48, 250 steps of 16 x 128' in notes.shape(configs)
  with pytest.raises(UserError, match='must be proxy or smoke'):
    learning_rates.rows(setting_of(tmp_path, scale='paper'), '60m')


@pytest.mark.conformance
def test_a_grid_grows_while_the_best_is_at_its_edge(calls, tmp_path, monkeypatch):
  assert rates.next_factor({0.5: 2.0, 1: 1.0, 2: 3.0}) is None
  assert rates.next_factor({0.5: 1.0, 1: 2.0, 2: None}) is None
  assert rates.next_factor({0.5: 1.0, 1: 1.0, 2: math.inf}) == 0.25
  assert rates.next_factor({0.5: 3.0, 1: 2.0, 2: 2.0, 4: 1.0}) == 8
  assert rates.next_factor({0.125: 1.0, 1: 2.0}) is None
  monkeypatch.setattr(rates, 'BASE', {'elas': 8e-3})
  monkeypatch.setattr(learning_rates, 'BASE', {'elas': 8e-3})
  harness.main(learning_rates.EXPERIMENT, flags_of(tmp_path))  # all rates are equal
  result = result_in(tmp_path, 'learning_rates')
  factors = ('0.125', '0.25', '0.5', '1', '2')
  assert [row['label'] for row in result['rows']] == [f'elas_x{x}' for x in factors]
  assert result['complete'] and len(calls) == 5
  assert result['summary']['elas']['learning_rate'] == 1e-3
  assert 'beyond: elas (0.001).' in notes.chosen_rates(['elas', 'full'], result['summary'])
