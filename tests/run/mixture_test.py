"""Runs on a mixture: evaluated by source, continued in phase two, refused on other data."""

import json
import pathlib
import re
import shutil

import jax
import numpy as np
import pytest

from elas_jax import evaluate as evaluation
from elas_jax import measure
from elas_jax import train as training
from elas_jax.common.errors import UserError
from elas_jax.config.config import to_tree
from elas_jax.data import blocks, prepare, train_tokenizer
from elas_jax.run.continuation import Past, check_config, check_data
from elas_jax.run.evaluation import evaluate
from elas_jax.run.sharding import make_mesh
from elas_jax.train import train
from tests.conftest import write_corpus
from tests.finished_runs import computed, final_params, train_until

SHARE = 'validation_share=0.2'
SOURCES = f'web=text_files:web;{SHARE},code=text_files:code;{SHARE}'
PHASES = 'web=0.9,code=0.1 | 0.5: web=0.2,code=0.8'


@pytest.fixture
def make(make_config):
  """A function of the fields of a config; its sources are in the current folder."""
  write_corpus(pathlib.Path('web'), [80] * 40)
  write_corpus(pathlib.Path('code'), [50] * 30)

  def make(phases=PHASES, sources=SOURCES, **more):
    source = {'data.source': 'mixture', 'data.source.sources': sources}
    return make_config(**source | {'data.source.phases': phases} | more)

  return make


def prepared(config):
  return blocks.prepare(config.data.source.corpus(config.data))


def test_a_run_that_is_stopped_in_phase_two_ends_as_if_it_were_not(make, capsys):
  config = make()
  train(config, 'whole')
  for stop in (6, 8):
    train_until(stop, config, 'parts')
  assert computed('parts') == computed('whole')
  equal = np.testing.assert_array_equal
  jax.tree.map(equal, final_params('parts'), final_params('whole'))
  evaluation.main(['--workdir=whole'])
  found = json.loads(pathlib.Path('whole/evaluation.json').read_text())
  assert {'eval/loss_web', 'eval/loss_code'} <= found.keys()
  measure.main(['--workdir=whole', '--measures=activations', '--units=64'])
  printed = capsys.readouterr().out
  assert 'activations/' in printed
  assert re.search(r'step 8  validation loss .*  web \d\.\d{4}  code \d\.\d{4}', printed)


def test_phases_of_the_config_are_those_of_training(make):
  config = make()
  order = prepared(config).train.order(config.data.batch_size)
  rows = np.array([order.place(row)[0] for row in range(8 * 8)])
  # Of 32 rows 0.9 and 0.2 are 28.8 and 6.4.
  assert (rows[:32] == 0).sum() in (28, 29) and (rows[32:] == 0).sum() in (6, 7)


@pytest.mark.parametrize('units', [0, 300])
def test_each_source_is_evaluated_and_all_together(make, units):
  config = make(**{'eval.units': units})
  mesh, validation = make_mesh(config, jax.devices()[:1]), prepared(config).validation
  variables = training.create_state(config, mesh).variables
  values = evaluate(config, variables, validation, mesh)
  tokens, loss = 0, 0.0
  for name, part in validation.parts.items():
    # Alone, of as many units as its share.
    share = -(-units * len(part) // len(validation))
    own = evaluate(make(**{'eval.units': share}), variables, part, mesh)
    assert values[f'eval/loss_{name}'] == pytest.approx(own['eval/loss'], abs=1e-6)
    tokens += own['eval/tokens']
    loss += own['eval/loss'] * own['eval/tokens']
  assert values['eval/tokens'] == tokens
  assert values['eval/loss'] == pytest.approx(loss / tokens, abs=1e-6)
  assert (tokens < validation.tokens) == bool(units)


def continued(old, done, new):
  """What is said of a run that has done so many steps."""
  return check_config(Past(pathlib.Path('run'), done, to_tree(old), {}, None), new)


def test_steps_that_are_done_stay_in_their_phase(make):
  with pytest.raises(UserError, match='data.source.phases=.*was started with'):
    continued(make(), 6, make(PHASES.replace('0.8', '0.7')))
  longer = {'train.steps': 12}
  with pytest.raises(UserError) as error:
    continued(make(), 6, make(**longer))
  assert str(error.value) == (
    'data.source.phases=web=0.9,code=0.1 | 6: web=0.2,code=0.8: the run in run has done 6 '
    'steps, of which step 5 was in another phase; give '
    "'--config.data.source.phases=web=0.9,code=0.1 | 4: web=0.2,code=0.8', what it was "
    'started with, or another --workdir'
  )
  with pytest.raises(UserError, match='of which step 1 was in another phase'):
    continued(make(), 1, make(PHASES.replace('0.9', '0.8'), **longer))
  (said,) = continued(make(), 4, make(**longer))
  assert 'code=0.1 | 4: web=0.2,code=0.8 -> web=0.9,code=0.1 | 6: web=0.2' in said
  (said,) = continued(
    make(), 6, make(PHASES.replace('0.5', '4') + ' | 0.75: web=1', **longer)
  )
  assert said.endswith('| 4: web=0.2,code=0.8 | 9: web=1')


def test_other_contents_are_refused_by_name_and_other_places_are_not(make):
  config, data = make(), prepared(make())
  past = Past(pathlib.Path('run'), 6, to_tree(config), data.describe(), data.record())
  shutil.move('code', 'moved')
  moved = make(sources=SOURCES.replace(':code', ':moved'))
  assert check_config(past, moved) == []
  assert check_data(past, moved, prepared(moved)) == []
  pathlib.Path('moved/000.txt').write_text('self ' * 99)
  with pytest.raises(UserError) as error:
    check_data(past, moved, prepared(moved))
  assert str(error.value).startswith("data.source='mixture' data.source.sources='web=")
  assert 'are not those of step 6 in run: code: data.source.path: 1 file (000.txt) cha' in (
    str(error.value)
  )
  assert '\n' not in str(error.value) and 'web: ' not in str(error.value)
  other = make('', sources=SOURCES.replace('code=text_files:code', 'text=text_files:moved'))
  with pytest.raises(UserError, match='sources web, text instead of web, code'):
    check_data(past, other, prepared(other))


def test_what_cannot_be_prepared_is_said_by_its_name(make):
  for name, text in (('absent', None), ('empty', '')):
    if text is not None:
      write_corpus(pathlib.Path(name), [0])
    config = make('', sources=f'{SOURCES},x=text_files:{name}')
    with pytest.raises(
      UserError, match=f"^data.source.sources: x: .*path='{name}'"
    ) as error:
      prepared(config)
    assert '\n' not in str(error.value)


def test_commands_of_the_data(make, capsys):
  options = [f'--sources={SOURCES}', '--cache_dir=cache', '--source=mixture']
  prepare.main([*options, '--sequence_length=32', '--processes=1'])
  printed = capsys.readouterr().out
  assert printed.startswith('web:\ntrain: ') and '\ncode:\ntrain: ' in printed
  with pytest.raises(UserError, match=r"--path='x': --source=mixture has none"):
    prepare.main([*options, '--path=x'])
  train_tokenizer.main([*options, '--vocab_size=300', '--output=bpe.json'])
  alone = ['--source=text_files', '--path=web', f'--{SHARE}', '--cache_dir=cache']
  train_tokenizer.main([*alone, '--vocab_size=300', '--output=web.json'])
  capsys.readouterr()
  read = lambda path: json.loads(pathlib.Path(path).read_text())['model']['merges']
  assert len(read('bpe.json')) == len(read('web.json')) and read('bpe.json') != read(
    'web.json'
  )


def test_documents_of_a_mixture_do_not_see_each_other(make):
  data = prepared(make()).with_segments()
  rows = data.train.read([0, len(data.train) - 1])
  own = data.parts['code'].train
  np.testing.assert_array_equal(rows['segments'][1], own[len(own) - 1]['segments'])


def test_what_is_left_out_is_said_by_source(make, capsys):
  pathlib.Path('code/x.parquet').write_text('x')
  prepared(make())
  assert capsys.readouterr().err == 'code: files that are not read: 1 .parquet\n'
