"""The tables of experiments/papers: rows, what they state and conclude, their files."""

import dataclasses
import functools
import json
import math
import pathlib
import shutil

import pytest

from configs import images
from configs.functions import SHAPES
from configs.methods import METHODS
from elas_jax.config.cli import load_config
from elas_jax.config.parsing import parse
from elas_jax.run.ended import size_of
from elas_jax.run.record import Record, key, read
from elas_jax.run.revisions import revisions
from elas_jax.tables.plan import At, Plan
from elas_jax.tables.render import Section, sections
from elas_jax.tables.table import MARKS, RATE
from experiments import networks, papers, published, run
from experiments.papers import (
  ablation_controls,
  decoder_networks,
  function_fitting,
  kan_table,
  kat_vs_mlp,
  quadratic_table,
  table4_warmup,
)
from pallas_kernels.two_four import RULES
from tests.conftest import thinned
from tests.tables.fakes import SIZE, plan_of, recorded

ROOT = pathlib.Path(run.__file__).parents[1]
RESULTS = ROOT / 'experiments/results'
LANGUAGE = ('table1_perplexity', 'table4_warmup', 'table5_rules', 'ablation_controls')
LANGUAGE = (*LANGUAGE, 'backward_recipes')
GIVEN = f'--config.{RATE}=0.5'
# By hand: the optimiser LORO, restarts, GaLore's epsilon, LOST's start.
PUT_RIGHT = {'loro', 'loro_relu2', 'elas', 'relora', 'galore', 'lost'}


@pytest.fixture(autouse=True)
def in_root(monkeypatch):
  monkeypatch.chdir(ROOT)


@functools.cache
def committed():
  return Record(read(RESULTS / 'runs.jsonl'))


def ats(plan):
  return [At(plan, size) for size in plan.scale.sizes]


@pytest.mark.parametrize('name', thinned(papers.names(), *LANGUAGE[:2], 'function_fitting'))
def test_every_run_of_every_table_has_a_config_that_can_run(name):
  table = papers.table_of(name)
  for scale in table.scales:
    plan = Plan(table, scale, Record(()))
    own = any(RATE in x.fields for at in ats(plan) for x in table.rows(at))  # own rates
    overrides = [GIVEN] if scale == 'proxy' and not own else []
    plan = Plan(table, scale, Record(()), overrides)
    plan.check()
    for size in plan.scale.sizes:
      labels = [line.row.label for line in plan.lines if line.size == size]
      assert len(set(labels)) == len(labels) > 0 and not any(',' in x for x in labels)
    for line in plan.lines:
      if not line.runs:
        assert own and line.search.grid  # others of the table are searched
        continue
      config = line.runs[0].config
      assert config.seed == table.first_seed
      assert (config.optimizer.learning_rate == 0.5) == bool(overrides)
      if not config.traits.text:
        assert config.data.source.label() == line.size


@pytest.mark.parametrize('name', thinned(papers.names(), 'table1_perplexity', 'kat_vs_mlp'))
def test_the_committed_table_is_what_the_record_says(name):
  found = sections(name, papers.table_of(name), RESULTS)
  if not found:  # no run is recorded, and no page is there
    assert not list((RESULTS / 'tables').glob(f'{name}*'))
    return
  text = '\n'.join(section.markdown() for section in found)
  title = found[0].table.title
  assert (RESULTS / f'tables/{name}.md').read_text() == f'# {title}\n\n{text}'
  tree = json.loads((RESULTS / f'tables/{name}.json').read_text())
  trees = {section.scale: section.tree() for section in found}
  assert tree == {'title': title, 'scales': json.loads(json.dumps(trees))}
  for section in found:
    assert 'PROXY' in section.label or section.scale == 'paper'
    assert (RESULTS / f'tables/{name}_{section.scale}.png').exists()


def test_methods_that_were_put_right_have_revisions():
  for method in METHODS:
    config = parse(load_config(f'configs/default.py:{method}', []))
    assert bool(revisions(config)) == (method in PUT_RIGHT), method


@pytest.mark.parametrize('name', LANGUAGE)
def test_no_run_of_before_is_shown(name):
  plan = Plan(papers.table_of(name), 'proxy', committed())
  assert plan.lines
  for line in plan.lines:
    for one in line.runs:
      needs = revisions(one.config)
      assert bool(needs) == (line.row.method in PUT_RIGHT)
      assert one.recorded is None or one.recorded.revisions == needs


def test_runs_whose_products_were_forced_are_others():
  field, bf16 = 'model.feed_forward.implementation', '--config.model.compute_dtype=bfloat16'
  known = {
    key(parse(load_config('configs/default.py:elas', [bf16, *more])))
    for more in ([], *([f'--config.{field}={x}'] for x in ('auto', 'xla', 'mosaic')))
  }
  assert len(known) == 3


def test_tables_share_runs_and_seeds_do_not():
  def one(name, label, seed=0):
    plan = Plan(papers.table_of(name), 'smoke', Record(()), seeds=2)
    (line,) = [x for x in plan.lines if x.row.label == label]
    return line.runs[seed].workdir(pathlib.Path('runs'))

  same = {
    one('table1_perplexity', 'elas'),
    one('table4_warmup', 'dense_1/10'),
    one('table5_rules', 'top2'),
    one('backward_recipes', 'exact'),
    one('ablation_controls', 'elas'),
  }
  assert len(same) == 1
  assert one('table1_perplexity', 'elas', seed=1) not in same
  assert one('table5_rules', 'mvue') not in same


def test_no_table_imports_another():
  for name in papers.names():
    text = (ROOT / f'experiments/papers/{name}.py').read_text()
    assert 'experiments.papers' not in text, name


def test_every_field_of_a_scale_is_of_some_row():
  table = papers.table_of('table1_perplexity')
  for scale in ('smoke', 'proxy'):
    fields = table.scales[scale].fields_of_kinds
    plan = Plan(table, scale, Record(()), [GIVEN])
    _ = plan.lines
    assert {f'--config.{name}' for name in fields} <= plan._taken


def test_equal_flops_rank_and_why_no_rank_has_equal_memory():
  def at(*flags):
    flags = [f'--config.data.{flag}' for flag in ('batch_size=2', *flags)]
    return At(Plan(ablation_controls.TABLE, 'smoke', Record(()), flags), 'smoke')

  model = at().config('elas').model
  model = dataclasses.replace(model, linear=dataclasses.replace(model.linear, rank=30))
  four = dataclasses.replace(model, feed_forward_width=4 * model.width)
  assert ablation_controls.equal_flops_rank(four) == 26
  assert ablation_controls.equal_flops_rank(model) == 27  # F = 2 D: 16 of 18 parts
  row = ablation_controls.equal_flops(at())
  assert row.fields == {'model.linear.rank': 7}
  # By hand: float32 h and y, against half of that for z and a bit for each entry.
  entries = 2 * 2 * 512 * 64
  (note,) = ablation_controls.memory_note(at('sequence_length=512'))
  kept = f'{entries * 8 / 1e6:.1f} MB of h and y, against {entries * 17 / 8e6:.1f} MB of'
  assert kept in note
  assert not ablation_controls.memory_note(at())  # 32 tokens: there is one


def test_published_numbers_are_well_formed():
  assert set(published.PERPLEXITY) <= set(METHODS)
  assert set(published.RULES) <= set(RULES)
  for table in (published.PERPLEXITY, published.WARMUP, published.RULES):
    for sizes in table.values():
      assert set(sizes) <= set(published.SIZES)
      for cell in (cell for cells in sizes.values() for cell in cells):
        assert cell.mark in MARKS and cell.source
        assert math.isnan(cell.value) or 10 < cell.value < 150
  # ELAS trained with 1000 dense steps and top2 is the same entry in its three tables.
  elas = published.PERPLEXITY['elas']
  assert published.RULES['top2'] == elas
  assert published.WARMUP[1000]['130m'] == elas['130m']
  assert 'sltrain' not in published.PERPLEXITY
  assert set(published.PERPLEXITY['cola']) == {'1b'}
  assert set(published.PERPLEXITY['loro']) == {'130m'}
  for cells in (x for sets in published.NETWORKS.values() for x in sets.values()):
    assert all(80 < cell.value < 100 and cell.mark == 'R' for cell in cells)
  assert set(published.NETWORKS) <= set(kan_table.WIDTHS)
  # As the README of MNIST-1D has them.
  sequences = {name: x['mnist1d'][0] for name, x in published.MNIST1D.items()}
  assert [cell.value for cell in sequences.values()] == [32, 68, 94]
  assert all(cell.mark == 'R' for cell in sequences.values())
  assert set(sequences) <= set(images.models())


def test_published_values_of_networks_stand_at_their_own_scale_alone():
  def shown(scale, size):
    section = Section(Plan(kan_table.TABLE, scale, Record(()), [GIVEN]), 'kan_table')
    (entry,) = [x for x in section.entries if (x.label, x.size) == ('mlp', size)]
    return [str(value) for _, value in section.published(entry)]

  assert shown('paper', 'mnist') == ['97.62 ± 0.03']
  assert shown('paper', 'fashion_mnist') == ['88.39 ± 0.06']


def concluded(table, bits_of, scale='smoke', seeds=2, **values_of):
  """The conclusions of a table by the values, None where a run diverged."""
  plan = plan_of(table, scale=scale, overrides=values_of.pop('flags', ()), seeds=seeds)
  runs = []
  for line in plan.lines:
    for one in line.runs:
      if (found := bits_of(line, one.seed)) != 'not run':
        made = recorded(one.config, found and 1.0)
        runs.append(dataclasses.replace(made, values=found or {}))
  plan = plan.by(Record(runs))
  return table.conclude(Section(plan, 'a').entries)


def test_warmup_table_says_whether_a_loss_was_not_finite():
  ends = {0: 'not run', 1: 'not run'}
  say = lambda: concluded(table4_warmup.TABLE, lambda line, seed: ends[seed])[0]
  assert say().endswith('not known, no run is done yet.')
  ends[0] = {'eval/loss': 1.0}
  assert say().endswith('no run had a non-finite loss, of 1 done.')
  ends[1] = None
  assert say().endswith('1 of 2 runs had a non-finite loss (seed 1 at step 7).')


def test_collapse_is_chance_or_divergence():
  def lines(**accuracies):  # of the seeds 10 and 11
    def of(line, seed):
      name = line.row.label.removesuffix('_adamw_0.001_depth_2')
      found = accuracies.get(name, (97.0, 97.0))[seed - 10]
      if line.size == 'mnist1d':
        found = accuracies.get('mnist1d', found)
      return found if found in (None, 'not run') else {'accuracy_percent': found}

    return concluded(quadratic_table.TABLE, of)

  where = 'adamw_0.001_depth_2 on digits'
  assert lines() == []
  # One of them has not collapsed.
  assert lines(gamma_1=(20.0, 19.9), mnist1d=97.0) == [
    f'{where}: collapsed plain 0 of 2, random 0 of 2, gamma_1 1 of 2, gradients 0 of 2, '
    'weights 0 of 2.'
  ]
  # A failure of ReLinear is said as plainly as its success.
  found = lines(gamma_1=(9.0, None), weights=(9.0, 97.0), mnist1d='not run')
  assert found[0].endswith(
    f'({where}): gradients collapses in 0 of 2, in none at {where}; '
    'weights collapses in 1 of 2.'
  )
  assert 'gradients 2 of 2' in lines(gradients=(9.0, 9.0))[0]
  assert lines(gamma_1=(9.0, 'not run')) == []
  _, line = lines(mnist1d=9.0)
  assert line.startswith('adamw_0.001_depth_2 on mnist1d: collapsed plain 2 of 2,')


def parameters(config):
  return size_of(config)['parameters']


@pytest.mark.conformance
@pytest.mark.parametrize(
  ('size', 'scale'), [('digits', 'proxy'), ('mnist', 'paper'), ('mnist1d', 'proxy')]
)
def test_equal_parameters_are_at_the_nearest_width(size, scale):
  """Of the widths of WIDTHS none beside them has parameters that are nearer."""
  plan = plan_of(kan_table.TABLE, scale=scale, overrides=[GIVEN])
  lines = {line.row.label: line for line in plan.lines if line.size == size}
  config = lambda label: lines[label].runs[0].config
  budget = parameters(config('bspline'))
  # By hand: coefficients of 5 + 3 splines, scaler and base of each edge.
  inputs = {'digits': 64, 'mnist': 784, 'mnist1d': 40}[size]
  assert budget == 10 * 64 * (inputs + 10)

  def off(label, more):
    model = config(label).model
    model = dataclasses.replace(model, width=model.width + more)
    return abs(parameters(dataclasses.replace(config(label), model=model)) - budget)

  for method in kan_table.widths(size):
    assert config(method).model.width == 64
    label = f'{method}_equal'
    step = getattr(config(label).model.linear, 'groups', 1)  # of a rational layer
    assert off(label, 0) <= min(off(label, step), off(label, -step)), method
    assert off(label, 0) < 0.02 * budget


@pytest.mark.parametrize(
  ('table', 'searched', 'steps'),
  [
    (kan_table, [*kan_table.OF_MNIST1D, 'mlp_equal', 'af_kan_equal'], 2000),
    (kat_vs_mlp, ['vit', 'kat'], 1000),
  ],
)
def test_mnist1d_has_searches_and_steps_of_its_own(table, searched, steps):
  """Digits and its runs stay as they are."""
  of = {name: [] for name in ('digits', 'mnist1d')}
  plan = plan_of(table.TABLE)
  for search in plan.searches:
    of[search.size].append(search)
  assert {x.row.label for x in of['mnist1d']} == set(searched)
  made = {x.config.train.steps for search in of['mnist1d'] for x in search.grid.values()}
  assert made == {steps // 2}
  assert {tuple(x.grid) for x in of['mnist1d']} == {(3e-3, 1e-2, 3e-2, 1e-1)}
  found = {x.config.train.steps for search in of['digits'] for x in search.grid.values()}
  assert found == {250}
  plan = plan_of(table.TABLE, overrides=[GIVEN])
  rows = {x.row.label: x.config for x in plan.lines if x.size == 'mnist1d'}
  assert {rows[x].train.steps for x in searched} == {steps}
  assert {x.config.train.steps for x in plan.lines if x.size == 'digits'} == {500}


def test_networks_that_are_published_on_mnist1d_have_their_authors_rate_and_steps():
  plan = plan_of(kan_table.TABLE)
  lines = {x.row.label: x for x in plan.lines if x.size == 'mnist1d' and x.runs}
  assert list(lines) == ['linear', 'mlp_100_100', 'conv_mlp']
  for line in lines.values():
    config = line.runs[0].config
    assert (config.train.steps, config.data.batch_size) == (6000, 100)
    assert config.optimizer.learning_rate == 1e-2
  model = lines['mlp_100_100'].config.model
  assert (model.width, model.depth, model.use_bias) == (100, 2, True)
  assert lines['linear'].config.model.depth == 0


@pytest.mark.conformance
def test_mlps_of_functions_are_at_the_nearest_width():
  plan = plan_of(function_fitting.TABLE, overrides=[GIVEN])
  config = {(x.row.label, x.size): x.runs[0].config for x in plan.lines}
  for size in function_fitting.WIDTHS:
    budget, own = (parameters(config[x, size]) for x in ('bspline', 'mlp_equal'))
    mlp = config['mlp_equal', size]
    other = lambda more, mlp=mlp: parameters(
      dataclasses.replace(
        mlp, model=dataclasses.replace(mlp.model, width=mlp.model.width + more)
      )
    )
    assert abs(own - budget) <= min(abs(other(1) - budget), abs(other(-1) - budget))


def test_rates_are_searched_for_each_kind_of_data():
  assert networks.rates_size('mnist') == networks.rates_size('digits') == 'digits'
  assert networks.rates_size('mnist1d') == 'mnist1d'
  for size in ('runge', *SHAPES):
    assert networks.rates_size(size) == 'exp_sin_square'
  plan = plan_of(function_fitting.TABLE)
  assert {run.size for run in plan.todo(plan.lines)} == {'exp_sin_square'}
  assert [x.row.label for x in plan.searches] == [
    'mlp',
    'mlp_equal',
    *function_fitting.OTHERS,
  ]
  widths = {x.row.label: x.grid[0.01].config.model.width for x in plan.searches}
  assert widths['mlp_equal'] == function_fitting.WIDTHS['exp_sin_square']


def test_decoders_have_equal_parameters():
  plan = plan_of(decoder_networks.TABLE)
  counts = {
    search.row.label: parameters(search.grid[2e-3].config) for search in plan.searches
  }
  assert len(counts) == len(decoder_networks.DECODERS)
  for name, count in counts.items():
    assert count == pytest.approx(counts['swiglu'], rel=0.005), name


@pytest.mark.conformance
def test_functions_are_fitted_and_drawn(tmp_path):
  flags = ['function_fitting', '--scale=smoke', '--only=mlp,rings,bessel']
  flags += [f'--runs={tmp_path}/runs', f'--results={tmp_path}/results']
  flags += ['--config.train.compilation_cache=', '--config.data.source.examples=200']
  run.main(flags)
  folder = tmp_path / 'results/tables'
  found = {one.parsed.data.source.label(): one for one in read(folder / '../runs.jsonl')}
  assert set(found) == {'rings', 'bessel'}
  assert found['rings'].values['accuracy_percent'] > 0
  assert found['bessel'].values['eval/rmse'] > 0 and found['bessel'].size != SIZE
  for name in ('fits', 'boundaries'):
    (folder / f'function_fitting_smoke_{name}.png').unlink()
  assert not (folder / 'function_fitting_smoke_edges.png').exists()
  text = (folder / 'function_fitting.md').read_text()
  assert '| FLOPs per row |' in text and 'By mean RMSE (parameters): mlp 0.' in text
  # Without the folders of the runs the figures stay as they are.
  shutil.rmtree(tmp_path / 'runs')
  run.main(flags)
  assert len(list(folder.glob('*.png'))) == 1  # of the rows
