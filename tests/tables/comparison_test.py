"""A comparison as a tree: what is matched, paired, found in common and warned of."""

import dataclasses
import json
import math

import pytest

from elas_jax.common.errors import UserError
from elas_jax.config.config import defaults, filled, to_tree
from elas_jax.run.metrics import strict_json
from elas_jax.run.record import Recorded
from elas_jax.tables.comparison import comparison, decimals
from elas_jax.tables.sides import Side

SIZE = {
  'parameters': 1000,
  'parameter_bytes': 4000,
  'buffer_bytes': 0,
  'optimizer_bytes': 8000,
  'training_flops': 6000.0,
}


@pytest.fixture
def side(make_config):
  """side(label, {seed: eval/loss}, size, **fields of the config)."""

  def make(label, losses, size=None, values=None, **fields):
    runs = {}
    for seed, loss in losses.items():
      tree = to_tree(dataclasses.replace(make_config(**fields), seed=seed))
      own = {'eval/loss': loss} | (values or {})
      size = SIZE | (size or {})
      runs[seed] = Recorded(label, tree, 'finished', values=own, size=size)
    return Side(label, (label,), runs, (), (), next(iter(runs.values()), None))

  return make


def rows(result):
  return {row['title']: row for row in result['sizes']}


def test_sizes_match_within_a_percent(side):
  other = {'parameters': 1010, 'optimizer_bytes': 7900, 'buffer_bytes': 4}
  fields = {'train.steps': 16, 'data.batch_size': 4}
  result = comparison([side('a', {0: 1.0}), side('b', {0: 1.0}, other, **fields)])
  found = rows(result)
  assert found['parameters']['matched'] == [True]
  assert found['bytes of the optimiser']['matched'] == [False]
  assert found['bytes of the optimiser']['more'] == [pytest.approx(-100 / 8000)]
  assert found['bytes of buffers']['more'] == [math.inf]
  # Steps x batch x length: 8 x 8 x 32 and 16 x 4 x 32; 6000 FLOPs each.
  assert found['tokens of training']['values'] == [2048, 2048]
  assert found['training FLOPs of the run']['values'] == [12_288_000, 12_288_000]
  assert not any('unequal tokens' in line for line in result['warnings'])
  assert json.loads(strict_json(result))['sizes'][2]['more'] == [None]


def test_networks_of_rows_count_examples(side):
  config = filled(defaults('classification'))
  run = Recorded('a', to_tree(config), 'finished', values={'eval/loss': 1.0}, size=SIZE)
  sides = [Side(x, (x,), {0: run}, (), (), run) for x in 'ab']
  found = rows(comparison(sides))
  assert found['examples of training']['values'] == [700 * 64] * 2
  assert found['training FLOPs of one example']['values'] == [6000.0] * 2


def test_recorded_runs_on_other_data_are_warned_of(side):
  """Whose configs say the same: the library of another Python, for one."""

  def of(label, data):
    made = side(label, {0: 1.0, 1: 2.0})
    runs = {x: dataclasses.replace(run, data=data) for x, run in made.runs.items()}
    return dataclasses.replace(made, runs=runs)

  line = 'unequal data: rows of training, by fingerprint: a 11; b 22'
  assert line in comparison([of('a', '11'), of('b', '22')])['warnings']
  for data in ('11', ''):  # the same, and one that was not written down
    warnings = comparison([of('a', '11'), of('b', data)])['warnings']
    assert not any('unequal data' in x for x in warnings)


def test_unequal_tokens_are_warned_of(side):
  fields = {'train.steps': 16}
  sides = [side('a', {0: 1.0}), side('b', {0: 1.0}, **fields)]
  assert 'unequal tokens of training: a 2,048; b 4,096' in comparison(sides)['warnings']


def test_size_is_computed_where_the_record_lacks_it(side):
  one = side('a', {0: 1.0})
  lacking = dataclasses.replace(one.runs[0], size={'parameters': 1})
  (bare,) = [dataclasses.replace(one, label='b', runs={0: lacking}, example=lacking)]
  found = rows(comparison([one, bare]))
  # V D for the embedding and for the head, at the least.
  assert found['parameters']['values'][1] > 2 * 257 * 32
  assert found['bytes of parameters']['values'][1] == 4 * found['parameters']['values'][1]


def test_configs_field_by_field(side):
  rate = 0.0020000001
  fields = {'model.linear': 'lora', 'optimizer.learning_rate': rate}
  result = comparison([side('a', {0: 1.0}), side('b', {1: 1.0}, **fields)])
  found = {row['field']: row['values'] for row in result['config']}
  assert found['model.linear'] == ['low_rank', 'lora']
  assert found['optimizer.learning_rate'] == ['0.002', str(rate)]
  assert found['model.linear.factor_init'][1] == '-'  # a field of one kind alone
  assert all(x.startswith(('model.linear', 'optimizer.l')) for x in found)  # no seed


def test_metrics_are_those_that_both_have(side):
  a = side('a', {0: 1.0}, values={'eval/f1': 0.5, 'eval/tokens': 9, 'x/y': 1.0})
  b = side('b', {0: 1.0}, values={'eval/f1': 0.5, 'eval/tokens': 9, 'x/z': 1.0})
  values = lambda metrics: comparison([a, b], metrics)['pairs'][0]['values']
  names = lambda metrics: [value['name'] for value in values(metrics)]
  assert names(None) == ['eval/loss', 'eval/f1']
  assert names(['eval/tokens', 'eval/f1']) == ['eval/tokens', 'eval/f1']
  with pytest.raises(UserError, match='--metrics=x/y: a and b do not both have it'):
    names(['x/y'])


def test_what_is_not_finite_is_not_used_and_said(side):
  result = comparison(
    [side('a', {0: 1.0, 1: None, 2: 3.0}), side('b', {0: 0.5, 1: 1.0, 2: 2.0, 3: 1.0})]
  )
  (pair,) = result['pairs']
  (value,) = pair['values']
  assert (value['seeds'], value['differences']) == ((0, 2), (0.5, 1.0))
  assert value['sides'][1]['mean'] == 1.25  # of the seeds that are paired
  said = 'eval/loss: seed 1 of a or b without a finite value, not used'
  assert said in result['warnings']
  assert 'b: seed 3 not used, since a lacks it' in result['warnings']


def test_the_first_side_is_compared_with_each_of_the_others(side):
  first, second, third = (side(x, {0: i, 1: i + 1.0}) for i, x in enumerate('abc'))
  result = comparison([first, second, third])
  assert [pair['sides'] for pair in result['pairs']] == [['a', 'b'], ['a', 'c']]
  assert [pair['values'][0]['mean'] for pair in result['pairs']] == [-1, -2]
  assert result['pairs'][0]['values'][0]['verdict'].startswith('a is lower by 1.0000')


def test_runs_that_both_sides_have_are_named(side):
  one = side('a', {0: 1.0, 1: 2.0})
  two = side('b', {0: 1.0, 1: 2.0})
  shared = dataclasses.replace(two, runs=two.runs | {1: one.runs[1]})
  warnings = comparison([one, shared])['warnings']
  assert 'a and b share the run a of seed 1' in warnings


def test_runs_of_a_side_that_differ_are_named(side):
  one, other = side('a', {0: 1.0}), side('a', {1: 1.0}, **{'train.steps': 9})
  mixed = dataclasses.replace(one, runs=one.runs | other.runs)
  warnings = comparison([mixed, side('b', {0: 1.0})])['warnings']
  assert 'a: its runs differ in more than the seed' in warnings
  assert 'b: its runs differ in more than the seed' not in warnings


@pytest.mark.parametrize(
  'largest, digits', [(1.34, 4), (34.5, 3), (0.97, 5), (2e-5, 9), (31_000, 0), (0, 4)]
)
def test_digits_follow_the_largest_number(largest, digits):
  assert decimals([0.0, largest]) == digits
