"""Making the runs of a table: what is done, resumed, recorded and refused."""

import contextlib
import json
import pathlib
import shutil

import pytest

from elas_jax import train as train_module
from elas_jax.common.errors import UserError
from elas_jax.config.cli import run_command
from elas_jax.config.config import to_json
from elas_jax.run import record
from elas_jax.run.diverged import Diverged
from elas_jax.run.workers import claimed
from elas_jax.systems.feed_forwards.mlp import MLP
from elas_jax.tables import figures
from experiments import papers, render, run
from tests.conftest import thinned
from tests.tables.fakes import values

ROOT = pathlib.Path(run.__file__).parents[1]
PAIR = """
from elas_jax.tables.entries import gap_lines
from elas_jax.tables.table import Row, Table
from experiments.language import LANGUAGE, METRICS, scales

TABLE = Table(
  title='A pair',
  rows=lambda at: [Row('one', 'elas'), Row('two', 'low_rank_relu2')],
  family=LANGUAGE,
  scales=scales(),
  conclude=lambda entries: gap_lines(entries, [('one', 'two')], METRICS),
)
"""


@pytest.fixture
def calls(monkeypatch):
  """Takes the place of training by the files that it leaves; the workdirs in order."""
  trained = []

  def fake(config, workdir):
    trained.append(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    (workdir / 'config.json').write_text(to_json(config))
    bits = 2.0 + config.seed / 5 + isinstance(config.model.feed_forward, MLP) / 10
    about = {'commit': 'c' * 40, 'device': 'cpu', 'versions': {'jax': '0.0'}, 'time': 'now'}
    about['python'] = '3.12.1'
    lines = [{'run': about}, {'step': 5, 'train/loss': 1.0}]
    lines.append({'step': config.train.steps} | values(bits))
    text = ''.join(json.dumps(line) + '\n' for line in lines)
    (workdir / 'metrics.jsonl').write_text(text)

  monkeypatch.setattr(run, 'train', fake)
  monkeypatch.setattr(figures, 'plot', lambda *_: None)  # half a second for each
  return trained


def flags_of(folder, *more, name='pair'):
  """Of a table in a file of one's own, on the corpus of a test."""
  (folder / 'pair.py').write_text(PAIR)
  corpus = ['source=text_files', f'source.path={folder / "corpus"}']
  data = [*corpus, f'cache_dir={folder / "cache"}', 'processes=1']
  return [
    str(folder / f'{name}.py') if name == 'pair' else name,
    '--scale=smoke',
    f'--runs={folder / "runs"}',
    f'--results={folder / "results"}',
    *(f'--config.data.{flag}' for flag in data),
    '--config.train.compilation_cache=',
    *more,
  ]


def recorded_in(folder):
  return record.read(folder / 'results/runs.jsonl')


def row_of(folder, number):
  tree = json.loads((folder / 'results/tables/pair.json').read_text())
  return tree['scales']['smoke']['rows'][number]


def test_what_is_recorded_is_not_done_again(calls, tmp_path, capsys):
  run.main(flags_of(tmp_path, '--only=one'))
  assert len(calls) == 1 and row_of(tmp_path, 1)['missing'] == [0]
  run.main(flags_of(tmp_path, '--seeds=2'))
  assert len(calls) == len(set(calls)) == 4
  said = capsys.readouterr().out
  assert '--- one, smoke, seed 1: 3 of 4 runs to do' in said
  run.main(flags_of(tmp_path))  # asks for one seed; the other is kept
  assert len(calls) == 4 and row_of(tmp_path, 0)['runs'].keys() == {'0', '1'}
  (line,) = [x for x in capsys.readouterr().out.splitlines() if x.startswith('- one - two')]
  assert 'bits per byte -0.1000 ± 0.0000' in line and 'one is lower by 0.1000' in line
  shutil.rmtree(tmp_path / 'runs')  # a clone has the record alone
  run.main(flags_of(tmp_path))
  assert len(calls) == 4
  for one in recorded_in(tmp_path):
    assert one.commit == 'c' * 40 and one.seconds >= 0 and one.size['parameters'] > 0
    assert one.curve == {
      'train/loss': [[5, 1.0]],
      'eval/loss': [[10, pytest.approx(one.values['eval/loss'], rel=1e-4)]],
    }
  text = (tmp_path / 'results/runs.jsonl').read_text()
  assert str(tmp_path / 'runs') not in text and str(tmp_path / 'cache') not in text


def test_a_table_takes_the_runs_that_another_has_made(calls, tmp_path):
  run.main(flags_of(tmp_path))
  other = PAIR.replace("'two', 'low_rank_relu2'", "'more', 'loro_relu2'")
  flags = flags_of(tmp_path)
  (tmp_path / 'other.py').write_text(other.replace("('one', 'two')", "('one', 'more')"))
  run.main([str(tmp_path / 'other.py'), *flags[1:]])
  assert len(calls) == 3
  assert (
    'one - more (smoke): bits per byte'
    in (tmp_path / 'results/tables/other.md').read_text()
  )


def test_a_run_that_another_process_makes_is_left_to_it(calls, tmp_path, monkeypatch):
  """While this process trains row one another makes row two, which then is not made."""
  first, flags = run.train, flags_of(tmp_path)

  def train(config, workdir):
    monkeypatch.setattr(run, 'train', first)
    run.main([*flags, '--only=two'])
    first(config, workdir)

  monkeypatch.setattr(run, 'train', train)
  run.main(flags)
  assert len(calls) == len(set(calls)) == 2 == len(recorded_in(tmp_path))


def test_a_run_that_was_recorded_since_it_was_planned_is_not_made(
  calls, tmp_path, monkeypatch
):
  flags, path = flags_of(tmp_path, '--only=one'), tmp_path / 'results/runs.jsonl'
  run.main(flags)
  (done,) = recorded_in(tmp_path)
  path.unlink()
  shutil.rmtree(tmp_path / 'runs')

  @contextlib.contextmanager
  def claimed_late(folder, name):  # another process ends the run just before
    record.append(path, done)
    yield True

  monkeypatch.setattr(run, 'claimed', claimed_late)
  monkeypatch.setattr(run, 'WAIT', 0.01)
  run.main(flags)
  assert len(calls) == 1 and recorded_in(tmp_path) == [done]


def test_it_waits_for_what_others_hold(calls, tmp_path, monkeypatch, capsys):
  flags = flags_of(tmp_path)
  run.main([*flags, '--only=one'])
  (done,) = recorded_in(tmp_path)
  (tmp_path / 'results/runs.jsonl').unlink()
  monkeypatch.setattr(run, 'WAIT', 0.01)
  with claimed(tmp_path / 'runs/smoke/.locks', done.key) as mine:
    assert mine
    looks = []

    def sleep(seconds):  # the other process ends its run while this one waits
      looks.append(seconds)
      if len(looks) == 3:
        record.append(tmp_path / 'results/runs.jsonl', done)

    monkeypatch.setattr(run.time, 'sleep', sleep)
    run.main([*flags, '--only=one'])
  assert len(calls) == 1 and len(looks) == 3
  assert capsys.readouterr().out.count('waiting for 1 runs of other processes') == 1


def test_a_torn_record_is_mended_by_the_folders(calls, tmp_path, capsys):
  run.main(flags_of(tmp_path))
  path = tmp_path / 'results/runs.jsonl'
  whole = path.read_text()
  path.write_text(whole[:-20])
  run.main(flags_of(tmp_path))  # its folder has it: nothing is lost
  assert f'{path}: its last line was cut short and is dropped' in capsys.readouterr().err
  assert [x.key for x in recorded_in(tmp_path)] == [
    record._run(line.encode()).key for line in whole.splitlines()
  ]
  path.write_text('{"fingerprint": "a"}\n' + whole)
  with pytest.raises(UserError, match='runs.jsonl:1: is no line of a run'):
    run.main(flags_of(tmp_path))


@pytest.mark.parametrize(
  'damage', thinned(['metrics', 'config', 'no evaluation'], 'no evaluation')
)
def test_an_incomplete_run_is_made_again(calls, tmp_path, damage):
  run.main(flags_of(tmp_path, '--only=one'))
  (tmp_path / 'results/runs.jsonl').unlink()
  path = calls[0] / ('config.json' if damage == 'config' else 'metrics.jsonl')
  if damage == 'metrics':
    path.unlink()
  else:
    path.write_text('\n'.join(path.read_text().splitlines()[:2]) + '\n')
  run.main(flags_of(tmp_path, '--only=one'))
  assert calls[0] == calls[1] and len(recorded_in(tmp_path)) == 1


def test_a_diverged_run_is_recorded_and_not_tried_again(calls, tmp_path, monkeypatch):
  fake, error = run.train, Diverged('training diverged at step 7: loss=nan', 7)

  def diverge(config, workdir):
    fake(config, workdir)
    raise error

  monkeypatch.setattr(run, 'train', diverge)
  for _ in range(2):
    run.main(flags_of(tmp_path))
  assert len(calls) == 2  # one of each row
  assert [(x.status, x.step, x.values) for x in recorded_in(tmp_path)] == [
    ('diverged', 7, {})
  ] * 2
  assert '| seed 0 at step 7 |' in (tmp_path / 'results/tables/pair.md').read_text()
  error = UserError('no space left')  # other errors are not divergences
  with pytest.raises(UserError, match='no space left'):
    run.main(flags_of(tmp_path, '--seeds=2'))
  assert len(recorded_in(tmp_path)) == 2


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
      run.main(flags_of(tmp_path, '--only=two'))
  assert recorded_in(tmp_path) == []
  capsys.readouterr()
  run.main(flags_of(tmp_path, '--only=two'))
  assert 'continuing after step 6' in capsys.readouterr().out
  (found,) = recorded_in(tmp_path)
  assert found.values.keys() >= {'activations/dropped_mass', 'eval/published_perplexity'}
  assert 'activations/dropped_mass/0' not in found.values and found.seconds is None
  assert (tmp_path / 'results/tables/pair_smoke.png').stat().st_size > 1000


@pytest.mark.parametrize(
  'flags, words',
  [
    (['--scale=huge'], '--scale=huge: must be one of smoke, proxy, paper'),
    (['--only=one,four'], "no row 'four'; there are elas, low_rank_relu2, one"),
    (['--seeds=0'], "--seeds: '0': must be an integer from 1 to 10000"),
    ([f'--seeds={10**30}'], ': must be an integer from 1 to 10000'),
    (['--workers=0'], "--workers: '0': must be an integer from 1"),
    (['--workers=1000'], '--workers=1000: must be at most'),
    (['--config.model.rnak=3'], 'did you mean model.linear.rank'),
    (['--config.optimizer.rank=4'], 'rank=4: a field of kinds that no row of this'),
    (['--results='], '--results: empty; must be a path'),
    (['--config.seed=3'], '--config.seed=3: rows have seeds of their own; --seeds says'),
    (['--onyl=one'], '--onyl'),
  ],
)
def test_a_bad_command_line_is_one_line(flags, words, calls, tmp_path, capsys):
  with pytest.raises(SystemExit) as end:
    run_command(lambda: run.main(flags_of(tmp_path, *flags)))
  assert end.value.code == 2
  error = capsys.readouterr().err
  assert words in error and error.count('\n') == 1
  assert not calls and not (tmp_path / 'results').exists()


@pytest.mark.parametrize('command', [run, render])
def test_an_unknown_table_is_named(command, capsys, tmp_path):
  for file, text in (('empty', ''), ('broken', '\n1 / 0'), ('kan_table', PAIR)):
    (tmp_path / f'{file}.py').write_text(text)
  for name, words in (
    ('tabel1', 'NAME=tabel1: no such table; must be FILE.py or one of ablation_controls, '),
    ('none.py', 'NAME=none.py: no such table; must be FILE.py or one of '),
    (str(tmp_path / 'empty.py'), 'has no TABLE; must be a file like experiments/papers'),
    (str(tmp_path / 'broken.py'), 'broken.py: line 2: ZeroDivisionError: division by zero'),
    (str(tmp_path / 'kan_table.py'), 'a table of experiments/papers has this name'),
  ):
    with pytest.raises(UserError) as error:
      command.main([name, *(['--scale=smoke'] if command is run else [])])
    assert words in str(error.value)


@pytest.mark.parametrize('given', [[], ['table1_perplexity']])
def test_what_is_missing_is_named(given):
  with pytest.raises(UserError, match='NAME: missing|--scale: missing; must be smoke'):
    run.main(given)


def test_all_tables_are_listed(capsys):
  run.main(['--list'])
  lines = capsys.readouterr().out.splitlines()
  assert [line.split()[0] for line in lines] == papers.names()
  assert 'smoke, proxy, paper  Validation perplexity of all methods' in '\n'.join(lines)


def test_a_mistake_is_named_where_the_table_has_other_overrides_too(calls, tmp_path):
  run.main(flags_of(tmp_path))
  with pytest.raises(UserError, match='did you mean model.linear.rank'):
    run.main(flags_of(tmp_path, '--config.model.rnak=3'))


def test_more_seeds_that_were_asked_for_stay(calls, tmp_path):
  run.main(flags_of(tmp_path, '--seeds=2'))
  for flags in ([], ['--seeds=1']):
    run.main(flags_of(tmp_path, *flags))
    assert row_of(tmp_path, 0)['runs'].keys() == {'0', '1'} and len(calls) == 4


def test_fewer_seeds_are_made_alone_and_the_page_lacks_the_others(calls, tmp_path):
  run.main(flags_of(tmp_path, '--seeds=2'))
  (tmp_path / 'results/runs.jsonl').write_text('')
  run.main(flags_of(tmp_path, '--seeds=1', '--only=two'))
  assert len(calls) == 4 + 1
  page = (tmp_path / 'results/tables/pair.md').read_text()
  assert '**Incomplete: 1 of 4 runs are done.**' in page
  run.main(flags_of(tmp_path))
  assert len(calls) == 8


def test_pages_are_not_emptied_where_there_is_no_record(calls, tmp_path):
  run.main(flags_of(tmp_path))
  page, path = tmp_path / 'results/tables/pair.md', tmp_path / 'results/runs.jsonl'
  whole, flags = page.read_text(), [str(tmp_path / 'pair.py'), f'--results={path.parent}']
  path.rename(tmp_path / 'away')
  with pytest.raises(UserError, match='results: has no runs.jsonl, the record of runs'):
    render.main(flags)
  path.write_text('')
  render.main(flags)
  assert page.read_text() == whole
  page.with_suffix('.json').write_text('{"tit')
  with pytest.raises(UserError, match='pair.json: is no table; delete it'):
    render.main(flags)


def test_results_of_other_overrides_are_not_written_over(calls, tmp_path):
  run.main(flags_of(tmp_path))
  with pytest.raises(UserError, match='other overrides.*--results=DIR'):
    run.main(flags_of(tmp_path, '--config.model.layers=1'))


def test_flags_of_no_number_reach_no_page(calls, tmp_path):
  run.main(flags_of(tmp_path))
  run.main(flags_of(tmp_path, f'--config.data.cache_dir={tmp_path}/another'))
  assert len(calls) == 2
  texts = [
    x.read_text()
    for x in (tmp_path / 'results').rglob('*')
    if x.suffix != '.png' and x.is_file()
  ]
  assert not any('cache_dir' in text for text in texts)
  (text,) = [text for text in texts if text.startswith('# A pair')]
  assert (
    'Made by `python -m experiments.run pair.py --scale=smoke --config.data.source' in text
  )


def test_tables_that_share_a_run_are_rendered_too(calls, tmp_path, monkeypatch):
  """Of the tables that the results have a page of."""
  flags = flags_of(tmp_path, name='ablation_controls')
  monkeypatch.setattr(run, 'names', lambda: ['ablation_controls', 'table5_rules'])
  run.main([*flags, '--only=loro_relu2'])
  page = tmp_path / 'results/tables/table5_rules.md'
  assert not page.exists()
  run.main(['table5_rules', *flags[1:], '--only=mvue'])
  assert '| top2 | 60m 34.12 [S], 130m 24.80 [S], 350m 19.94 [S], 1b 15.69 [S] | - |' in (
    page.read_text()
  )
  run.main([*flags, '--only=elas'])  # which is top2
  assert '1b 15.69 [S] | 2.0000 |' in page.read_text()


def test_smoke_results_are_not_among_the_results(calls, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'configs').symlink_to(ROOT / 'configs')
  run.main([flags_of(tmp_path)[0], '--scale=smoke'])
  assert (tmp_path / 'runs/experiments/smoke/results/tables/pair.md').exists()
  assert not (tmp_path / 'experiments').exists()


def test_a_run_of_before_a_revision_is_made_again(calls, tmp_path):
  run.main(flags_of(tmp_path))
  path = tmp_path / 'results/runs.jsonl'
  old = path.read_text().replace('"revisions":["loro_step"],', '')
  path.write_text(old)
  run.main(flags_of(tmp_path, '--only=two', '--seeds=2'))
  row = row_of(tmp_path, 0)
  assert row['runs'] == {} and row['before']['0'][1] == ['loro_step'] and len(calls) == 3
  text = (tmp_path / 'results/tables/pair.md').read_text()
  assert '| one | - |' in text and 'until they are made again: runs of one' in text
  assert 'one - two (smoke): not known, no seed' in text
  run.main(flags_of(tmp_path, '--seeds=2'))
  text = (tmp_path / 'results/tables/pair.md').read_text()
  assert 'Not shown' not in text and len(calls) == 5
  assert path.read_text().startswith(old)  # only added to
