"""The command: the values of training once more, of any run, and what it refuses."""

import json
import shutil

import numpy as np
import pytest
from matplotlib import image

from elas_jax.common.errors import UserError
from elas_jax.common.limits import quoted
from elas_jax.measure import COLUMNS, main, table
from elas_jax.run.metrics import read_metrics
from elas_jax.systems.measures import MEASURES
from tests.conftest import ROOT, thinned

FIXTURES = ROOT / 'tests/fixtures'


@pytest.fixture
def run(trained, tmp_path):
  return shutil.copytree(trained[1], tmp_path / 'run')


@pytest.mark.usefixtures('four_devices')
def test_values_are_those_of_the_evaluation_in_training(run, capsys):
  main([f'--workdir={run}', '--measures=activations,spectrum'])
  printed = capsys.readouterr().out
  written = json.loads((run / 'measures.json').read_text())
  _, lines = read_metrics(run)
  (last,) = (x for x in lines if x['step'] == 8 and 'eval/loss' in x)
  values = written['values']
  for name in ('zero_fraction', 'dropped_mass', 'crowded_groups'):
    layers = [last[f'activations/{name}/{layer}'] for layer in (0, 1)]
    np.testing.assert_allclose(values['activations'][name], layers, rtol=1e-5)
    mean = f'{last[f"activations/{name}"]:>10.4g}'
    assert f'activations/{name:<45}'[: len(name) + 12] in printed and mean in printed
  assert written['step'] == 8 and written['units'] > 100
  assert written['run'].keys() >= {'commit', 'versions', 'device', 'time'}
  # Factors of rank 8, and a head that has all of its 32.
  of = values['spectrum']
  assert np.max(of['effective_rank/layers/feed_forward/up']) < 8 < of['effective_rank/head']
  for name in ('activations', 'spectrum'):
    pixels = image.imread(run / f'plots/measure_{name}.png')[..., :3]
    assert pixels.std() > 0.01
    assert f'plots/measure_{name}.png' in printed


def test_the_runs_own_measures_of_another_step_and_fewer_rows(run):
  main([f'--workdir={run}', '--step=4', '--units=40'])
  written = json.loads((run / 'measures.json').read_text())
  assert written['step'] == 4 and written['measures'] == {'activations': {}}
  assert 40 <= written['units'] < 80


ACCEPTED = quoted(sorted(MEASURES))


@pytest.mark.parametrize(
  'arguments, said',
  [
    (
      ['--measures=spectra'],
      f"--measures='spectra': did you mean 'spectrum'? must be one of {ACCEPTED}",
    ),
    (['--measures='], f'--measures: missing; must be some of {ACCEPTED}'),
    (
      ['--measures=spectrum', '--measures.spectrum.size=1'],
      '--measures.spectrum.size=1: no such field; accepted: none',
    ),
    (
      ['--measures.spectrum.size=1'],
      "--measures.spectrum.size=1: --measures is activations; name 'spectrum' there as "
      'well, as by --measures=activations,spectrum',
    ),
    (['--measure=spectrum'], '--measure=spectrum: no such flag; --help shows the flags'),
    (
      ['--measures=ppl_sparsity', '--measures.ppl_sparsity.p=0'],
      '--measures.ppl_sparsity.p=0.0: must be above 0',
    ),
    (
      ['--measures=sparsity', '--measures.sparsity.chunk=0'],
      '--measures.sparsity.chunk=0: must be at least 1',
    ),
    (['--units=0'], "argument --units: '0': must be an integer from 1"),
    (['--step=5'], 'has checkpoints of steps [4, 8]'),
  ],
)
def test_refused_in_one_line(trained, arguments, said):
  with pytest.raises(UserError) as error:
    main([f'--workdir={trained[1]}', *arguments])
  assert said in str(error.value) and '\n' not in str(error.value)


def test_a_curve_through_the_evaluations(run, capsys):
  """Of a run whose metrics.jsonl has what eval.measures=massive writes."""
  steps, lines = range(100, 1000, 100), (run / 'metrics.jsonl').read_text()
  values = {step: 9 + 3 * np.log(0.01 * step) for step in steps}
  for step, value in values.items():
    one = {'massive/ratio': 7, 'massive/ratio/0': value, 'massive/ratio/1': None}
    lines += json.dumps({'step': step, 'eval/loss': 1.0} | one) + '\n'
  (run / 'metrics.jsonl').write_text(lines)
  main([f'--workdir={run}', '--measures=massive'])
  printed = capsys.readouterr().out.splitlines()
  (line,) = (x for x in printed if x.startswith('massive/ratio/0: A '))
  assert line.endswith('; R2 1.0000 of 9 evaluations')
  written = json.loads((run / 'measures.json').read_text())
  assert list(written['fits']) == ['massive/ratio/0']  # nothing is known of layer 1
  fit = written['fits']['massive/ratio/0']
  assert fit['r2'] > 0.999 and fit['evaluations'] == 9 and fit['gamma'] > 0
  assert len(written['values']['massive']['ratio']) == 2
  assert image.imread(run / 'plots/fit_massive_ratio.png')[..., :3].std() > 0.01


def test_prints_before_it_writes(run, capsys):
  (run / 'measures.json.tmp').mkdir()  # it cannot be written, not even by root
  with pytest.raises(UserError, match=r'run/measures.json\S*: not written: Is a directory'):
    main([f'--workdir={run}'])
  assert 'activations/zero_fraction' in capsys.readouterr().out


def test_help_names_the_measures(capsys):
  with pytest.raises(SystemExit):
    main(['--help'])
  printed = ' '.join(capsys.readouterr().out.split())
  assert 'spectrum: Stable and effective rank of every linear map' in printed
  assert '--measures.NAME.FIELD=VALUE' in printed


def check_old_run(name, path, tmp_path, monkeypatch):
  version, _, run = name.partition('/')
  shutil.copytree(FIXTURES / version / run, tmp_path / run)
  if (FIXTURES / version / 'corpus').exists():
    shutil.copytree(FIXTURES / version / 'corpus', tmp_path / 'corpus')
  monkeypatch.chdir(tmp_path)
  main([f'--workdir={run}', '--measures=spectrum'])
  found = json.loads((tmp_path / run / 'measures.json').read_text())['values']['spectrum']
  assert np.min(found[f'stable_rank/{path}']) >= 1


@pytest.mark.parametrize(
  'name, path',
  thinned(
    [
      ('version_0/elas', 'layers/feed_forward/up'),
      ('version_0/kan_classifier', 'network/head'),
    ],
    ('version_0/kan_classifier', 'network/head'),
  ),
)
def test_runs_of_older_versions(name, path, tmp_path, monkeypatch):
  check_old_run(name, path, tmp_path, monkeypatch)
  if name.endswith('classifier'):
    for lacking, why in (
      ('activations', 'not every layer of the model has a feed-forward with a squ'),
      ('codes', "no layer of the model gives away 'activation'"),
      ('massive', "no layer of the model gives away 'residual'"),
      ('ppl_sparsity', 'the model has no feed-forwards'),
    ):
      with pytest.raises(UserError) as error:
        main(['--workdir=kan_classifier', f'--measures=spectrum,{lacking}'])
      said = str(error.value)
      assert said.startswith(f'--measures: {lacking} has nothing to measure: {why}')
      assert '\n' not in said


def test_a_table_has_room_for_some_layers():
  values = {'a': {'deep': np.arange(COLUMNS + 2.0), 'whole': np.array(0.5)}}
  head, deep, whole = table(values).splitlines()
  assert head.endswith(f'layer {COLUMNS - 1}  ...')
  assert deep.split() == ['a/deep', '4.5', *map(str, range(COLUMNS))]
  assert whole.split() == ['a/whole', '0.5']
