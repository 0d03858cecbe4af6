"""Tables of classifiers and regressors: runs, widths, collapse, rates and figures."""

import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

from configs.functions import SHAPES
from elas_jax.common.errors import UserError
from elas_jax.config.config import to_json
from elas_jax.run.state import abstract_variables, init_variables, parameter_count
from elas_jax.run.workdir import Run
from experiments import (
  af_kan_ablation,
  decoder_networks,
  function_figures,
  function_fitting,
  harness,
  kan_table,
  kat_vs_mlp,
  learning_rates,
  network_rates,
  network_values,
  networks,
  published,
  quadratic_table,
  report,
  result_files,
  runs,
)
from experiments.revisions import revisions
from experiments.runs import Setting
from tests.conftest import thinned

MODULES = (
  network_rates,
  quadratic_table,
  kan_table,
  af_kan_ablation,
  kat_vs_mlp,
  function_fitting,
)
ROOT = pathlib.Path(runs.__file__).parents[1]


def setting_of(experiment, scale, folder):
  """With every learning rate chosen, as 0.5."""
  path = folder / 'network_rates' / f'{scale}.json'
  names = [
    f'{size},{method}'
    for size, methods in network_rates.MODELS.items()
    for method in methods
  ]
  names += ['digits,mlp_equal', 'digits,af_kan_equal', 'exp_sin_square,mlp_equal']
  path.parent.mkdir(exist_ok=True)
  path.write_text(json.dumps({'summary': {n: {'learning_rate': 0.5} for n in names}}))
  return Setting(scale, (), folder / 'runs', path, experiment.scales)


def flags_of(folder, *more):
  own = [f'--runs={folder / "runs"}', f'--results={folder / "results"}']
  return ['--scale=smoke', *own, '--config.train.compilation_cache=', *more]


@pytest.mark.parametrize('module', thinned(MODULES, function_fitting))
def test_every_run_of_every_table_has_a_config_that_can_run(module, tmp_path):
  experiment = module.EXPERIMENT
  for scale in experiment.scales:
    setting = setting_of(experiment, scale, tmp_path)
    for size in experiment.sizes(scale):
      rows = experiment.rows(setting, size)
      labels = {row.label for row in rows}
      assert len(labels) == len(rows) and not any(',' in label for label in labels)
      for row in rows:
        run = setting.run(row, size, 2)
        assert run.config.seed == 2 and run.config.data.source.label() == size
        rate = run.config.optimizer.learning_rate
        own = 'optimizer.learning_rate' in row.fields
        chosen = not own or row.label.endswith('_equal')
        assert (rate == 0.5) == (scale == 'proxy' and chosen)


def test_a_table_without_chosen_rates_says_what_to_run(tmp_path):
  setting = setting_of(kan_table.EXPERIMENT, 'proxy', tmp_path)
  setting.rates.unlink()
  with pytest.raises(UserError, match='first run python -m experiments.network_rates'):
    kan_table.rows(setting, 'digits')


def test_committed_results_of_language_tables_are_still_known(tmp_path):
  path = ROOT / 'experiments/results/learning_rates/proxy.json'
  setting = Setting('proxy', (), tmp_path, path)
  configs = {
    row.label: setting.run(row, 'proxy', 1000).config
    for row in learning_rates.rows(setting, 'proxy')
  }
  recorded = json.loads(path.read_text())['rows']
  assert list(configs) == [row['label'] for row in recorded]
  # Those of methods that were put right since are to be made again.
  found = {runs.fingerprint(config) for config in configs.values() if not revisions(config)}
  assert len(found) == 24 and found <= set(result_files.recorded(path))


@pytest.mark.conformance
@pytest.mark.parametrize('size', ['digits', 'mnist'])
def test_equal_parameters_are_within_two_percent(size, tmp_path):
  scale = 'proxy' if size == 'digits' else 'paper'
  setting = setting_of(kan_table.EXPERIMENT, scale, tmp_path)
  rows = {row.label: row for row in kan_table.rows(setting, size)}
  model = lambda label: setting.run(rows[label], size, 0).config.model
  budget = networks.parameters(model('bspline'))
  # By hand: coefficients of 5 + 3 splines, scaler and base of each edge.
  inputs = 64 if size == 'digits' else 784
  assert budget == 10 * 64 * (inputs + 10)
  for method in kan_table.MODELS:
    assert model(method).width == 64
    equal = model(f'{method}_equal')
    assert networks.parameters(equal) == pytest.approx(budget, rel=0.02), method
  # (I + 10) D weights, and a scale and a bias of both norms; the nearest width.
  width = model('mlp_equal').width
  assert width == round((budget - 2 * inputs) / (inputs + 12))
  assert model('gr_kan_equal').width % 8 == 0


def test_values_of_a_run_by_hand(tmp_path):
  setting = setting_of(kan_table.EXPERIMENT, 'proxy', tmp_path)
  config = setting.config('mlp', 'digits', {})
  lines = [{'train/examples_per_second': speed} for speed in (10.0, 2874.0, 3000.0)]
  values = {'eval/accuracy': 0.975, 'eval/loss': 0.1}
  found = network_values.network_values(config, values, [{}, *lines])
  # Of 1797 digits a fifth is for validation.
  assert found == {
    'accuracy_percent': pytest.approx(97.5),
    'seconds_per_epoch': pytest.approx(1437 / 2874),
  }
  # Two products, two norms of 64 entries and activations.
  products = 2 * 64 * (64 + 10)
  assert products < network_values.forward_flops(config) < 1.2 * products


def test_collapse_is_chance_or_divergence():
  ended = lambda accuracy: {
    'status': 'finished',
    'values': {'accuracy_percent': accuracy},
  }
  outcomes = [ended(19.9), ended(20.0), {'status': 'diverged'}, {'status': 'not run'}]
  assert quadratic_table.collapsed(outcomes) == (2, 3)
  entry = lambda name, runs: {'label': f'{name}_sgd_0.01_depth_4', 'runs': runs}
  good, bad, names = [ended(97.0)] * 2, [ended(9.0)] * 2, quadratic_table.MODELS
  entries = lambda kinds: [entry(n, kinds.get(n, good)) for n in names]
  found, lines = quadratic_table.conclude(entries({}))
  assert not lines and not found['gamma_1_always_collapses']
  found, lines = quadratic_table.conclude(entries({'gamma_1': [good[0], bad[0]]}))
  assert not found['gamma_1_always_collapses']  # one run of gamma_1 has not
  assert lines == [
    'sgd_0.01_depth_4: collapsed plain 0 of 2, random 0 of 2, gamma_1 1 of 2, '
    'gradients 0 of 2, weights 0 of 2.'
  ]
  # A failure of ReLinear is said as plainly as its success.
  found, lines = quadratic_table.conclude(
    entries({'gamma_1': bad, 'weights': outcomes[:2]})
  )
  assert found['gamma_1_always_collapses'] == ['sgd_0.01_depth_4']
  assert lines[0].endswith(
    'gradients collapses in 0 of 2, in none at sgd_0.01_depth_4; '
    'weights collapses in 1 of 2.'
  )
  found, lines = quadratic_table.conclude(entries({'gradients': bad}))
  assert 'gradients 2 of 2' in lines[0]
  unfinished = {'gamma_1': [*bad, {'status': 'not run'}]}
  assert not quadratic_table.conclude(entries(unfinished))[1]


@pytest.mark.parametrize(('difference', 'says'), [(0.3, 'is at'), (-0.3, 'is NOT at')])
def test_the_table_says_whether_af_kan_is_as_good_as_an_mlp(difference, says):
  entry = lambda label, accuracies: {
    'label': label,
    'size': 'digits',
    'parameters': 1000,
    'runs': [
      {
        'status': 'finished',
        'seed': seed,
        'values': {'accuracy_percent': x, 'f1_percent': x},
      }
      for seed, x in enumerate(accuracies)
    ],
  }
  rows = [entry('mlp_equal', [97.0, 98.0])]
  rows += [entry('af_kan_equal', [97.0 + difference, 98.0 + difference])]
  _, lines = kan_table.conclude(rows)
  assert any(
    line.startswith(f'AF-KAN {says} least') and f'{difference:+.2f}' in line
    for line in lines
  )


def test_rankings_have_spread_and_size():
  entry = lambda label, mean: {
    'label': label,
    'parameters': 1234,
    'mean': {'x': mean} if mean else {},
    'std': {'x': 0.25},
  }
  entries = [entry('a', 1.0), entry('b', 2.0), entry('c', None)]
  order, line = report.ranking(entries, ('x', 'loss', 2), min)
  assert order == ['a', 'b', 'c']
  assert line == (
    'By mean loss (parameters): a 1.00 ± 0.25 (1,234), b 2.00 ± 0.25 (1,234); '
    'without a value: c.'
  )
  assert report.ranking(entries, ('x', 'loss', 2))[0] == ['b', 'a', 'c']


@pytest.mark.conformance
def test_a_collapsed_run_stands_in_the_table(tmp_path, monkeypatch):
  def train(config, workdir):
    workdir.mkdir(parents=True)
    (workdir / 'config.json').write_text(to_json(config))
    if getattr(config.model.linear, 'start', '') == 'random':
      raise UserError('training diverged at step 7: loss=nan')
    values = {'eval/loss': 1.0, 'eval/accuracy': 0.5, 'train/examples_per_second': 100.0}
    lines = [{'run': {'commit': 'c' * 40, 'device': 'cpu'}}]
    lines.append({'step': config.train.steps} | values)
    text = ''.join(json.dumps(line) + '\n' for line in lines)
    (workdir / 'metrics.jsonl').write_text(text)

  monkeypatch.setattr(runs, 'train', train)
  monkeypatch.setattr(harness.report, 'plot', lambda *_: None)
  harness.main(quadratic_table.EXPERIMENT, flags_of(tmp_path, '--seeds=2'))
  text = (tmp_path / 'results/quadratic_table/smoke.md').read_text()
  rows = {line.split('|')[1].strip(): line for line in text.splitlines() if '|' in line}
  random = rows['random_adamw_0.001_depth_2']
  assert '| 2 of 2 |' in random and 'seed 11 at step 7' in random
  assert '| 50.00 ± 0.00 |' in rows['gradients_adamw_0.001_depth_2']
  assert '| 0 of 2 |' in rows['gradients_adamw_0.001_depth_2']
  assert 'perplexity' not in text


def test_rates_are_chosen_for_each_kind_of_data():
  entry = lambda size, rate, loss: {
    'size': size,
    'label': f'mlp_{rate:g}',
    'method': 'mlp',
    'fields': {'optimizer.learning_rate': rate},
    'runs': [{'status': 'finished'}],
    'mean': {'eval/loss': loss},
  }
  grid = [entry('digits', 1e-3, 0.3), entry('digits', 3e-3, 0.2)]
  grid += [entry('exp_sin_square', 1e-3, 0.1), entry('exp_sin_square', 3e-3, 0.2)]
  grid += [entry('digits', 1e-2, 0.4)]
  chosen, lines = network_rates.conclude(grid)
  assert chosen['digits,mlp'] == {'learning_rate': 3e-3, 'at_the_edge_of_the_grid': False}
  assert chosen['exp_sin_square,mlp']['learning_rate'] == 1e-3
  assert lines == [
    'digits,mlp: 0.003',
    'exp_sin_square,mlp: 0.001, at the edge of the grid',
  ]
  assert networks.rate_name('mnist', 'mlp') == 'digits,mlp'
  for size in ('runge', *SHAPES):
    assert networks.rate_name(size, 'mlp') == 'exp_sin_square,mlp'


@pytest.mark.conformance
def test_published_values_stand_at_their_own_scale_alone(tmp_path):
  for cells in (x for sets in published.NETWORKS.values() for x in sets.values()):
    assert all(80 < cell.value < 100 and cell.mark == 'R' for cell in cells)
  assert set(published.NETWORKS) <= set(kan_table.MODELS)
  experiment = kan_table.EXPERIMENT

  def shown(scale, size):
    setting = setting_of(experiment, scale, tmp_path)
    path = tmp_path / 'results' / experiment.name / f'{scale}.json'
    table = harness.Table(experiment, setting, path, range(1), None)
    (line,) = [x for x in table.lines() if (x.row.label, x.size) == ('mlp', size)]
    return [cell['value'] for cell in harness._entry(experiment, line)['published']]

  assert shown('paper', 'mnist') == ['97.62 ± 0.03']
  assert shown('paper', 'fashion_mnist') == ['88.39 ± 0.06']
  assert not shown('smoke', 'digits')


@pytest.mark.conformance
def test_functions_are_fitted_and_drawn(tmp_path):
  flags = flags_of(tmp_path, '--only=mlp,rings,bessel', '--config.data.source.examples=200')
  harness.main(function_fitting.EXPERIMENT, flags)
  folder = tmp_path / 'results/function_fitting'
  result = json.loads((folder / 'smoke.json').read_text())
  finished = {
    row['size']: run['values']
    for row in result['rows']
    for run in row['runs']
    if run['status'] == 'finished'
  }
  assert set(finished) == {'rings', 'bessel'} and result['published'].endswith('%')
  assert finished['rings']['accuracy_percent'] > 0 and finished['bessel']['eval/rmse'] > 0
  for name in ('fits', 'boundaries'):
    (folder / f'smoke_{name}.png').unlink()
  assert not (folder / 'smoke_edges.png').exists()
  text = (folder / 'smoke.md').read_text()
  assert '| FLOPs per row |' in text and 'By mean RMSE (parameters): mlp 0.' in text
  # Without the folders of the runs the figures stay as they are.
  shutil.rmtree(tmp_path / 'runs')
  harness.main(function_fitting.EXPERIMENT, flags)
  assert not list(folder.glob('smoke_*.png'))


@pytest.mark.conformance
@pytest.mark.parametrize('method', function_figures.ADDITIVE)
def test_edges_of_a_layer_add_up_to_it(method, tmp_path):
  setting = setting_of(function_fitting.EXPERIMENT, 'proxy', tmp_path)
  config = setting.config(method, function_figures.EDGES_OF, {})
  variables = jax.jit(lambda: init_variables(config))()
  run = Run(config, 0, variables, None, None)
  x_N, phi_NxIxO = function_figures.edge_functions(run)
  axes = Figure().subplots()
  function_figures._edges(axes, run)
  assert len(axes.lines) == 2 * function_figures.SHOWN_EDGES
  model = config.model
  layer = model.linear.make(model.width, model.parts, name=None)
  own = {kind: tree['network']['layer_0'] for kind, tree in variables.items() if tree}
  out = lambda *x: np.asarray(layer.apply(own, jnp.array([x], jnp.float32)))[0]
  for one, other in ((0, 150), (399, 70)):
    added = phi_NxIxO[one, 0] + phi_NxIxO[other, 1] - phi_NxIxO[70].sum(0)
    expected = out(x_N[one], x_N[other]) - out(x_N[70], x_N[70])
    np.testing.assert_allclose(added, expected, atol=1e-5)


def decoder_setting(tmp_path, entries):
  path = tmp_path / 'decoder_rates' / 'proxy.json'
  path.parent.mkdir(exist_ok=True)
  summary = {name: {'learning_rate': 0.5} for name in decoder_networks.DECODERS}
  path.write_text(json.dumps({'summary': summary, 'rows': entries}))
  return Setting('proxy', (), tmp_path / 'runs', path, decoder_networks.scales())


def test_decoders_have_equal_parameters_and_the_best_kan(tmp_path):
  """Also that all can run: their configs are parsed."""
  scored = {'kan_chebyshev': [3.0, 2.5], 'kan_fast': [2.6, 2.7], 'kat': [1.0, 1.0]}
  entry = lambda method, score: {
    'method': method,
    'mean': {'eval/bits_per_byte': score},
    'runs': [{'status': 'finished'}],
  }
  entries = [entry(method, x) for method, scores in scored.items() for x in scores]
  assert decoder_networks.best_kan(entries) == 'kan_chebyshev'
  entries[0]['runs'] = [{'status': 'not run'}]
  assert decoder_networks.best_kan(entries) is None
  entries[0]['runs'] = [{'status': 'finished'}]

  setting = decoder_setting(tmp_path, entries)
  labels = [row.label for row in decoder_networks.rows(setting, 'proxy')]
  assert labels == ['swiglu', 'relu2', 'kat', 'quadratic', 'kan_chebyshev']
  counts = {}
  for name in decoder_networks.DECODERS:
    config = setting.run(decoder_networks.decoder(setting, name), 'proxy', 0).config
    assert config.optimizer.learning_rate == 0.5
    counts[name] = parameter_count(abstract_variables(config)['params'])
  for name, count in counts.items():
    assert count == pytest.approx(counts['swiglu'], rel=0.005), name
