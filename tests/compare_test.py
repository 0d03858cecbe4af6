"""The command: what it says of rows and of workdirs, and what it refuses."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from matplotlib import image
from scipy import stats

from elas_jax.common.errors import UserError
from elas_jax.compare import main
from tests.compared import RESULTS, write_workdir
from tests.finished_runs import drop_items

TABLE = 'table1_perplexity'


def printed(capsys, *arguments, results=RESULTS):
  main([*map(str, arguments), f'--results={results}'])
  return capsys.readouterr().out


def of_record(metric):
  """Seed -> value of both rows, read with nothing of the project."""
  runs = [json.loads(line) for line in (RESULTS / 'runs.jsonl').read_text().splitlines()]
  kinds = {'relu2_two_four': {}, 'mlp': {}}
  for run in runs:
    config = run['config']
    if config['task'] == 'language' and config['optimizer']['kind'] == 'adamw':
      kind = config['model']['feed_forward']['kind']
      kinds[kind][config['seed']] = run['values'][metric]
  return [np.array([of[seed] for seed in sorted(of)]) for of in kinds.values()]


def test_rows_differ_as_their_table_says(capsys, tmp_path):
  output = tmp_path / 'all.json'
  rows = f'{TABLE}/elas_adamw', f'{TABLE}/low_rank_relu2'
  text = printed(capsys, *rows, '--plot=', f'--output={output}')
  line = next(x for x in text.splitlines() if x.startswith('  bits per byte '))
  # As table 1 has it: 2.1546 ± 0.0420 and 2.1480 ± 0.0308, paired +0.0066 ± 0.0136.
  assert line.split()[3:9] == ['2.1546', '±', '0.0420', '2.1480', '±', '0.0308']
  assert line.split()[9:12] == ['+0.0066', '±', '0.0136']
  assert 'perplexity' in text and '+0.021 ± 0.043' in text and '+0.019 ± 0.040' in text
  assert 'PROXY: bits per byte; perplexity; perplexity, published' in text
  assert 'convention: no difference shown' in text and ' is lower ' not in text
  fields = [line.split()[0] for line in text.splitlines() if line.startswith('  model.')]
  assert fields == [
    'model.feed_forward',
    'model.feed_forward.activation',
    'model.feed_forward.dense_steps',
    'model.feed_forward.implementation',
    'model.feed_forward.pruned_steps',
    'model.feed_forward.recipe',
    'model.feed_forward.recipe.backward',
  ]
  assert '  optimizer' not in text
  assert 'low_rank_relu2: its learning rate 0.002 is at the edge of its grid' in text
  assert 'different commits: elas_adamw 3792b6bbd293; low_rank_relu2 8dc8badcb143' in text
  written = json.loads(output.read_text())
  for value in written['pairs'][0]['values']:
    truth = stats.ttest_rel(*of_record(value['name'])).confidence_interval(0.95)
    np.testing.assert_allclose([value['low'], value['high']], truth, rtol=1e-9)
  assert len(written['pairs'][0]['values']) == 3


def test_rows_without_curves_have_no_picture(capsys, tmp_path):
  plot = tmp_path / 'curves.png'
  rows = f'{TABLE}/elas_adamw', f'{TABLE}/low_rank_relu2'
  text = printed(capsys, *rows, f'--plot={plot}')
  assert 'no curves: none is recorded of these runs' in text and not plot.exists()
  assert 'WARNING: elas_adamw: no curve is recorded of seeds 0, 1, 2' in text


def test_a_row_of_before_a_revision_is_not_known(capsys):
  text = printed(capsys, f'{TABLE}/elas', f'{TABLE}/elas_adamw', '--plot=')
  assert 'PROXY: not known, no seed has finished both' in text
  assert 'elas: seeds 0, 1: made before a revision (loro_step), not compared' in text
  assert 'elas: seed 2: not run' in text
  assert '-0.' not in text and 'optimizer.lazy_scale' in text  # its config is known
  text = printed(capsys, f'{TABLE}/never', f'{TABLE}/elas_adamw', '--plot=')
  assert 'not known, no seed has finished both' in text
  assert 'never: none of its runs is recorded: its config is not known' in text


def test_fingerprints_that_differ_in_their_seed_are_a_side(capsys):
  names = '0aa17ab5ca11', '41057c381841', '0eeabe74cd23'
  text = printed(capsys, *names, '--plot=')
  assert '0aa17ab5ca11 + 41057c381841: 0aa17ab5ca11 41057c381841' in text
  assert 'PROXY: ' in text and 'one seed: nothing can be said of the spread' in text
  assert 'seeds 0, 1: made before a revision (loro_step), compared all the same' in text
  assert 'seed 1 not used, since 0eeabe74cd23 lacks it' in text


@pytest.fixture
def workdirs(make_config, tmp_path):
  """Two sides of three seeds: b's losses are those of a, and 0.10, 0.11, 0.12 more."""
  config = make_config()
  wider = dataclasses.replace(config.model, feed_forward_width=96)
  other = dataclasses.replace(config, model=wider)
  for seed, more in enumerate((0.10, 0.11, 0.12)):
    write_workdir(tmp_path / f'a_{seed}', config, seed, 2.0 + seed)
    write_workdir(tmp_path / f'b_{seed}', other, seed, 2.0 + seed + more)
  return [f'{side}_{seed}' for side in 'ab' for seed in range(3)]


def test_workdirs_are_paired_by_seed(capsys, workdirs):
  text = printed(capsys, *workdirs)
  # Seeds differ by 1.0, the sides by 0.11 ± 0.01: t = 4.3027, 0.11 ± 0.0248.
  assert 'eval/loss: a is lower by 0.1100 (95 % interval 0.0852 to 0.1348)' in text
  assert '3.0000 ± 1.0000  3.1100 ± 1.0100  -0.1100 ± 0.0100' in text
  assert 'curves in runs/compare/a-b.png' in text
  assert image.imread('runs/compare/a-b.png')[..., :3].std() > 0.01
  assert ['model.feed_forward_width', '64', '96'] in [x.split() for x in text.splitlines()]
  assert 'tokens of training' in text and 'WARNING' not in text
  lines = {line.split('  ')[1]: line for line in text.splitlines() if '  ' in line}
  assert lines['parameters'].rstrip().endswith('%')
  assert lines['tokens of training'].rstrip().endswith('matched')


def test_what_makes_numbers_unequal_is_warned_of(capsys, make_config, tmp_path):
  config = make_config()
  longer = dataclasses.replace(config.train, steps=12)
  document = dataclasses.replace(config.data, protocol='document')
  other = dataclasses.replace(config, train=longer, data=document)
  for seed in (0, 1):
    write_workdir(tmp_path / f'a_{seed}', config, seed, 2.0)
  write_workdir(tmp_path / 'a_2', config, 2, 2.0, steps=5)
  write_workdir(tmp_path / 'a_3', config, 3, 2.0)
  (tmp_path / 'a_3/diverged.json').write_text('{"step": 7, "message": ""}')
  units, gpu = (
    {'eval/tokens': 256},
    {'device': 'H200', 'platform': 'gpu', 'commit': 40 * 'b' + '-modified'},
  )
  write_workdir(tmp_path / 'b', other, 1, 1.0, values=units, **gpu)
  text = printed(capsys, 'a_0', 'a_1', 'a_2', 'a_3', 'b', '--plot=')
  warnings = {x.removeprefix('WARNING: ') for x in text.splitlines() if 'WARNING' in x}
  assert warnings == {
    'unequal tokens of training: a 2,048; b 3,072',
    'unequal data: data.protocol: a packed; b document',
    'unequal data: eval/tokens of validation: a 512; b 256',
    'a: seed 2: not finished, at step 5 of 8',
    'a: seed 3: diverged at step 7',
    f'different commits: a {12 * "a"}; b {12 * "b"}-modified',
    'different devices: a cpu; b H200',
    'a: seed 0 not used, since b lacks it',
    'a and b have one seed in common: nothing can be said of the spread',
  }
  assert 'eval/loss; eval/bits_per_byte: one seed: nothing can be said' in text


def test_trained_runs_on_other_data(capsys, trained, tmp_path):
  """The names in the configs are the same, the record of the data is not."""
  one = shutil.copytree(trained[1], tmp_path / 'one')
  two = shutil.copytree(trained[1], tmp_path / 'two')
  config = json.loads((two / 'config.json').read_text())
  config['optimizer']['learning_rate'] *= 2
  (two / 'config.json').write_text(json.dumps(config))
  assert 'unequal data' not in printed(capsys, one, two, '--plot=')
  path = two / 'checkpoints/8/record/data.json'
  record = json.loads(path.read_text())
  record['splits']['validation']['fingerprint'] = 20 * '0'
  path.write_text(json.dumps(record))
  drop_items(two / 'checkpoints/8', 'checksums')
  assert 'unequal data: two had other than one' in printed(capsys, one, two, '--plot=')


ROW = f'{TABLE}/elas_adamw'


@pytest.mark.parametrize(
  'arguments, said',
  [
    ([ROW], 'RUN: only one given; a comparison needs two or more'),
    ([ROW, ROW], f'{ROW} and {ROW}: the same RUN twice'),
    ([ROW, f'{ROW}/proxy'], 'the same RUN twice'),
    ([ROW, 'nothing'], "'nothing': neither a folder, nor TABLE/ROW, nor a fingerprint"),
    ([ROW, 12 * '0'], f'{12 * "0"}: no run of .*runs.jsonl has that fingerprint'),
    ([ROW, 'table9/elas'], "no table 'table9' in .*; there are 'networks', 'table1_perp"),
    ([ROW, f'{TABLE}/cola'], "no row 'cola'; there are 'elas_adamw', 'low_rank_relu2', 'e"),
    ([ROW, f'{TABLE}/elas/60m'], "no size '60m' of that row; there are 'proxy'"),
    ([ROW, 'networks/quadratic'], "several scales; give --scale, one of 'proxy', 'smoke'"),
    (
      ['networks/quadratic', 'networks/quadratic/flat', '--scale=proxy'],
      "of several sizes; give one of 'networks/quadratic/deep', 'networks/quadratic/flat'",
    ),
    ([ROW, f'{TABLE}/elas', '--scale=paper'], "--scale='paper': no scale of table"),
    (
      [ROW, 'networks/quadratic/deep', '--scale=proxy'],
      'elas_adamw is language, quadratic is classification: different tasks',
    ),
    (
      ['0aa17ab5ca11', '41057c381841'],
      '0aa17ab5ca11, 41057c381841: these differ in nothing but the seed',
    ),
    (
      [ROW, f'{TABLE}/low_rank_relu2', '--metrics=accuracy'],
      "--metrics=accuracy: elas_adamw and low_rank_relu2 do not both have it; there are '",
    ),
    ([ROW, f'{TABLE}/elas', '--plot=curves.pdf'], '--plot=curves.pdf: must end in .png'),
    ([ROW, f'{TABLE}/elas', '--confidence=95'], "'95': must lie between 0 and 1"),
    ([ROW, f'{TABLE}/elas', '--colour'], 'unrecognized arguments: --colour'),
    ([], 'the following arguments are required: RUN'),
  ],
)
def test_refused_in_one_line(arguments, said):
  with pytest.raises(UserError, match=said) as error:
    main([*arguments, f'--results={RESULTS}'])
  assert '\n' not in str(error.value)


def test_files_that_are_damaged_are_named(workdirs, tmp_path):
  results = shutil.copytree(RESULTS, tmp_path / 'results')
  refused = lambda *runs: pytest.raises(UserError, main, [*runs, f'--results={results}'])
  table = results / f'tables/{TABLE}.json'
  table.write_text(table.read_text().replace('0eeabe74cd23', 12 * 'f'))
  assert f'names the run {12 * "f"}, which' in str(refused(ROW, f'{TABLE}/elas').value)
  table.write_text(table.read_text()[:-100])
  assert f'{table}: is no table of recorded runs' in str(refused(ROW, ROW + '2').value)
  record = results / 'runs.jsonl'
  record.write_text('{}\n' + record.read_text())
  assert f'{record}:1: is no line of a run' in str(refused('0eeabe74cd23', 'a_0').value)
  (tmp_path / 'a_0/metrics.jsonl').write_text('{"run": {}}\n{"ste\n{"step": 1}\n')
  assert 'a_0/metrics.jsonl: line 2 is damaged' in str(refused('a_0', 'b_0').value)
  (tmp_path / 'a_1/config.json').write_text('{')
  assert 'a_1/config.json: is damaged' in str(refused('a_1', 'b_0').value)
  (tmp_path / 'a_2/config.json').write_text('{"version": 99}')
  assert 'a_2/config.json: version=99: ' in str(refused('a_2', 'b_0').value)
  (tmp_path / 'empty').mkdir()
  assert 'empty/config.json: cannot be read' in str(refused('empty', 'b_0').value)


def test_a_run_that_still_trains_is_no_side(make_config, tmp_path):
  write_workdir(tmp_path / 'a', make_config(), 0, 2.0, steps=5)
  write_workdir(tmp_path / 'b', make_config(**{'model.layers': 3}), 0, 2.0)
  with pytest.raises(UserError, match='a: not finished: .* ends at step 5 of 8'):
    main(['a', 'b'])


def test_what_cannot_be_written_is_named(workdirs, tmp_path, capsys):
  (tmp_path / 'curves.tmp.png').mkdir()
  with pytest.raises(UserError, match='--plot=curves.png: not written: Is a directory'):
    main([*workdirs, '--plot=curves.png'])
  assert 'a is lower by' in capsys.readouterr().out
  (tmp_path / 'runs.json').write_text('{"fingerprint": "a"}')
  for output in ('none/all.json', 'record.jsonl', 'runs.json', 'curves.tmp.png'):
    words = f'--output={output}: (must be a FILE.json|is there)'
    with pytest.raises(UserError, match=words):
      main([*workdirs, '--plot=', f'--output={output}'])
  assert capsys.readouterr().out == ''  # before anything is compared
  for _ in range(2):  # a comparison may be made anew
    main([*workdirs, '--plot=', '--output=all.json'])


def test_help_says_what_a_run_is(capsys):
  with pytest.raises(SystemExit):
    main(['--help'])
  text = ' '.join(capsys.readouterr().out.split())
  assert 'TABLE/ROW or TABLE/ROW/SIZE of the recorded tables' in text
