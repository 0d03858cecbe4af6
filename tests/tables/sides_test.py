"""RUNs as sides: what is one side, and by which names sides are told apart."""

import json
import pathlib
import shutil

import pytest

from elas_jax.common.errors import UserError
from elas_jax.tables.sides import read_sides
from tests.compared import RESULTS, write_workdir


def sides(*names, results=RESULTS):
  return {side.label: side for side in read_sides(names, pathlib.Path(results))}


def test_workdirs_of_one_config_are_told_apart_by_their_commit(make_config):
  for name, seed, commit in (
    ('old_0', 0, 'a'),
    ('old_1', 1, 'a'),
    ('new_0', 0, 'b'),
    ('new_1', 1, 'b'),
  ):
    write_workdir(pathlib.Path(name), make_config(), seed, 2.0, commit=40 * commit)
  found = sides('old_0', 'new_0', 'old_1', 'new_1')
  assert {label: sorted(side.runs) for label, side in found.items()} == {
    'old': [0, 1],
    'new': [0, 1],
  }
  write_workdir(pathlib.Path('again'), make_config(), 1, 2.0, commit=40 * 'b')
  with pytest.raises(UserError, match='new_1 and again: the same config and seed at the s'):
    sides('old_0', 'old_1', 'new_0', 'new_1', 'again')
  # Seeds of one side may have been run at different commits.
  with pytest.raises(UserError, match='old_0, new_1: these differ in nothing but the seed'):
    sides('old_0', 'new_1')


@pytest.mark.parametrize(
  'names, labels',
  [
    (['runs/a_0', 'runs/a_1', 'runs/b_0'], ['a', 'b_0']),
    (['runs/a/seed_0/', 'runs/a/seed_1', 'runs/b'], ['seed', 'b']),
    (['a/0', 'a/1', 'b/0', 'b/1'], ['a', 'b']),
    (['x/a_0', 'x/a_1', 'y/a_0', 'y/a_1'], ['x/a', 'y/a']),
    (['runs/one', 'runs/two', 'runs/b'], ['one + two', 'b']),
    (['runs/a_10', 'runs/a_11', 'b_3'], ['a', 'b_3']),
  ],
)
def test_labels_are_what_names_share(names, labels, make_config):
  first = names[: len(names) // 2 + len(names) % 2]
  for seed, name in enumerate(names):
    layers = 2 if name in first else 3
    seed = seed % len(first)
    write_workdir(pathlib.Path(name), make_config(**{'model.layers': layers}), seed, 2.0)
  assert list(sides(*names)) == labels


def test_equal_rows_of_two_tables_are_told_apart(tmp_path):
  results = shutil.copytree(RESULTS, tmp_path / 'results')
  table = results / 'tables/table1_perplexity.json'
  shutil.copy(table, table.with_name('table4_warmup.json'))
  names = 'table1_perplexity/elas_adamw', 'table4_warmup/elas_adamw'
  assert list(sides(*names, results=results)) == list(names)


def test_rows_say_which_runs_do_not_count():
  found = sides('table1_perplexity/elas', 'table1_perplexity/low_rank_relu2')
  assert found['elas'].left_out == (
    'seeds 0, 1: made before a revision (loro_step), not compared',
    'seed 2: not run',
  )
  assert found['elas'].example.fingerprint == '0aa17ab5ca11'
  other = found['low_rank_relu2']
  assert [other.runs[seed].fingerprint for seed in (0, 1, 2)] == [
    '95084fd5d738',
    '0c9507abc1ca',
    '650c92900c7c',
  ]
  names = ['networks/quadratic/deep', 'networks/quadratic/flat']
  deep, flat = read_sides(names, RESULTS, 'proxy')
  assert (deep.runs, deep.left_out) == ({}, ('seed 10: diverged at step 1',))
  assert (deep.label, flat.label, flat.example) == (*names, None)


def test_a_fingerprint_has_what_tables_say_of_it():
  edge, before = sides('95084fd5d738', '0aa17ab5ca11').values()
  assert [(row.label, row.at_the_edge) for row in edge.rows] == [('low_rank_relu2', True)]
  assert before.rows[0].scale_label.startswith("PROXY, not the paper's scale")
  assert before.notes == (
    'seed 0: made before a revision (loro_step), compared all the same',
  )


def test_a_workdir_is_read_as_the_record_has_it(make_config):
  """Of the last step alone, and of values by layer only their mean."""
  last = {'activations/zero_fraction': 0.5, 'activations/zero_fraction/1': 0.7}
  config = make_config()
  folder = write_workdir(pathlib.Path('a'), config, 3, 2.0, values=last)
  write_workdir(pathlib.Path('b'), make_config(**{'model.layers': 3}), 3, 2.0)
  lines = [json.loads(x) for x in (folder / 'metrics.jsonl').read_text().splitlines()]
  lines[0]['run']['continued'] = [{'step': 4, 'commit': 40 * 'b'}]
  lines.insert(1, {'step': 4, 'eval/of_before': 1.0})
  text = ''.join(json.dumps(line) + '\n' for line in lines) + '{"step": 8, "eva'
  (folder / 'metrics.jsonl').write_text(text)
  (run,) = sides('a', 'b')['a'].runs.values()
  assert run.values == {
    'eval/loss': 2.0,
    'eval/bits_per_byte': 2.8,
    'eval/tokens': 512,
    'activations/zero_fraction': 0.5,
  }
  assert run.curve['eval/loss'] == [[4, 3.6], [8, 2.0]] and len(run.curve) == 2
  assert run.commit == f'{40 * "a"}, {40 * "b"}' and run.parsed.seed == 3


def test_a_loss_that_was_not_finite_is_a_divergence(make_config):
  folder = write_workdir(pathlib.Path('a'), make_config(), 0, 2.0, steps=4)
  with (folder / 'metrics.jsonl').open('a') as file:
    file.write('{"step": 8, "eval/loss": null}\n')
  write_workdir(pathlib.Path('b'), make_config(**{'model.layers': 3}), 3, 2.0)
  assert sides('a', 'b')['a'].left_out == ('seed 0: diverged at step 8',)


def test_a_label_may_have_a_slash(tmp_path):
  """As those of the shares of a dense warm-up have."""
  results = shutil.copytree(RESULTS, tmp_path / 'results')
  path = results / 'tables/table1_perplexity.json'
  path.write_text(path.read_text().replace('"elas_adamw"', '"dense_1/20"'))
  for name in ('table1_perplexity/dense_1/20', 'table1_perplexity/dense_1/20/proxy'):
    found = sides(name, 'table1_perplexity/low_rank_relu2', results=results)
    assert list(found) == ['dense_1/20', 'low_rank_relu2']
  with pytest.raises(UserError, match="no size 'none' of that row; there are 'proxy'"):
    sides('table1_perplexity/dense_1/20/none', 'a', results=results)
