"""The kind mixture of data.source: how its text is read, and what it refuses."""

import dataclasses
import types

import pytest

from configs import default
from elas_jax.common.errors import UserError
from elas_jax.config import help as helps
from elas_jax.config.cli import load_config
from elas_jax.config.config import to_tree
from elas_jax.config.parsing import parse, parse_stored
from elas_jax.data.mixed_order import Phase
from elas_jax.systems.sources.mixture import Mixture, read_sources
from elas_jax.systems.sources.python_source import PythonSource
from elas_jax.systems.sources.text_files import TextFiles
from elas_jax.systems.sources.tfds import Tfds

THREE = 'web=text_files:A B,code=python_source,more=tfds:c4/en'
RUN = types.SimpleNamespace(train=types.SimpleNamespace(steps=100))


def test_sources_have_their_kinds_fields():
  text = (
    'a=text_files:x/*.txt;validation_path=y=1;validation_share=0.2, b=python_source,'
    'c=python_source:0.1,d=tfds:c4/en;data_dir=~/z,e=text_files:path=k=v/w:1'
  )
  assert read_sources(text) == {
    'a': TextFiles('x/*.txt', 'y=1', 0.2),
    'b': PythonSource(),
    'c': PythonSource(0.1),
    'd': Tfds('c4/en', '~/z'),
    'e': TextFiles('k=v/w:1'),
  }


@pytest.mark.parametrize(
  ('phases', 'expected'),
  [
    ('', [(0, (1, 1, 1))]),
    ('code=2', [(0, (0, 1, 0))]),
    ('web=0.9,code=0.1', [(0, (9, 1, 0))]),
    ('more=.25, web=1.|7:code=3,more=1.5', [(0, (4, 0, 1)), (7, (0, 2, 1))]),
    # Equal to the one before, and without steps.
    ('web=1 | 5: web=2 | 9: code=1', [(0, (1, 0, 0)), (9, (0, 1, 0))]),
    ('web=1 | 5: code=1 | 5: web=3,code=0', [(0, (1, 0, 0))]),
    ('web=1 | 0: code=1', [(0, (0, 1, 0))]),
  ],
)
def test_phases_are_integers_of_each_source(phases, expected):
  mixture = Mixture(THREE, phases)
  mixture.check('data.source', RUN)
  assert mixture.mixed == tuple(Phase(*phase) for phase in expected)
  for start, shares in expected[1:]:
    assert mixture.at_step(start) != mixture.at_step(start + 1) == shares


@pytest.mark.parametrize(
  ('sources', 'phases', 'message'),
  [
    ('', '', "data.source.sources='': must name sources, as 'web=text_files:FOLDER,"),
    ('web', '', "data.source.sources='web': 'web' must be NAME=KIND:FIELDS, with a name"),
    ('Web=tfds', '', "data.source.sources='Web=tfds': 'Web=tfds' must be NAME=KIND"),
    ('a=tfds,', '', "data.source.sources='a=tfds,': '' must be NAME=KIND:FIELDS"),
    (
      'a=tfds,b=tfds,a=tfds',
      '',
      "data.source.sources='a=tfds,b=tfds,a=tfds': 'a' is there",
    ),
    ('a=mixture:x', '', "data.source.sources: a='mixture': must be one of 'python_source'"),
    ('a=text_files', '', "data.source.sources: a.path='': text_files needs a folder"),
    (
      'a=text_files:gs://x',
      '',
      "data.source.sources: a.path='gs://x': gs:// addresses are",
    ),
    ('a=tfds:c4;x=1', '', "data.source.sources: a: 'x=1': must begin with one of 'name='"),
    ('a=tfds:c4;x', '', "data.source.sources: a: 'x': must begin with one of 'name='"),
    ('a=tfds:c4;name=x', '', "data.source.sources: a: 'name' is there twice"),
    ('a=python_source:b', '', "data.source.sources: a.validation_share='b': must be a"),
    ('a=python_source:2', '', 'data.source.sources: a.validation_share=2.0: must be'),
    (THREE, 'web=x', "data.source.phases='web=x': web='x': must be a number of at least 0"),
    (
      THREE,
      'web=-1',
      "data.source.phases='web=-1': web='-1': must be a number of at least",
    ),
    (THREE, 'web=nan', "data.source.phases='web=nan': web='nan': must be a number"),
    (THREE, 'web=1e9', "data.source.phases='web=1e9': web='1e9': must be a number"),
    (THREE, 'web=1,wbe=1', "data.source.phases='web=1,wbe=1': 'wbe' is no source; must be"),
    (THREE, 'web=1,web=2', "data.source.phases='web=1,web=2': 'web' is there twice"),
    (THREE, 'web=0,code=0', "data.source.phases='web=0,code=0': a phase must have a share"),
    (THREE, 'web=1 |', "data.source.phases='web=1 |': '' must begin with START:, in steps"),
    (THREE, 'web=1|web=2', "data.source.phases='web=1|web=2': 'web=2' must begin with"),
    (THREE, '5: web=1', "data.source.phases='5: web=1': '5: web=1' must have no start"),
    (
      THREE,
      'web=1|x:web=2',
      "data.source.phases='web=1|x:web=2': the start of a phase='x'",
    ),
    (THREE, 'web=1|0.5:code=2', "data.source.phases='web=1|0.5:code=2': 0.5 must be a"),
    (THREE, 'web=1|101:code=2', "data.source.phases='web=1|101:code=2': a phase starts "),
    (
      THREE,
      'web=1|9:code=1|8:web=1',
      "data.source.phases='web=1|9:code=1|8:web=1': a phase",
    ),
    (
      THREE,
      'web=0.1234567,code=1',
      "data.source.phases='web=0.1234567,code=1': the shares",
    ),
  ],
)
def test_what_cannot_be_is_refused(sources, phases, message):
  with pytest.raises(UserError) as error:
    Mixture(sources, phases).check('data.source', RUN)
  assert str(error.value).startswith(message)
  assert '\n' not in str(error.value)


def flags(**fields):
  values = {'data.source': 'mixture', 'data.source.sources': THREE} | fields
  return [f'--config.{name}={value}' for name, value in values.items()]


def test_starts_are_shares_of_the_steps_until_they_are_stored():
  phases = {'data.source.phases': 'web=9,code=1 | 0.8:code=1|0.29 : more=1'}
  with pytest.raises(UserError, match='a phase starts after 29 steps; must be at least'):
    parse(load_config('configs/default.py', flags(**phases, **{'train.steps': 100})))
  phases = {'data.source.phases': 'web=9,code=1 | 0.29:code=1|70 : more=1'}
  for steps, start in ((100, 29), (200, 58), (101, 29)):
    config = parse(
      load_config('configs/default.py', flags(**phases, **{'train.steps': steps}))
    )
    assert config.data.source.phases == f'web=9,code=1 | {start}: code=1 | 70: more=1'
    assert parse_stored(to_tree(config)) == config
  short = {'data.source.phases': 'web=1 | 0.1: code=1', 'train.steps': 1}
  assert parse(load_config('configs/default.py', flags(**short))).data.source.mixed == (
    Phase(0, (1, 0, 0)),
    Phase(1, (0, 1, 0)),
  )


@pytest.mark.parametrize(
  ('phases', 'message'),
  [
    (
      'web=1 | 2.5: code=1',
      'data.source.phases=2.5: must be a number of steps, or between',
    ),
    (
      'web=1 | 2.5 code=1',
      "data.source.phases='web=1 | 2.5 code=1': '2.5 code=1' must beg",
    ),
    ('wbe=1', "data.source.phases='wbe=1': 'wbe' is no source; must be of 'web', 'code'"),
  ],
)
def test_config_refuses_too(phases, message):
  with pytest.raises(UserError) as error:
    parse(load_config('configs/default.py', flags(**{'data.source.phases': phases})))
  assert str(error.value).startswith(message)


def test_help_says_what_the_fields_are():
  text = helps.help_on('data.source.mixture')
  assert "phases                 str = ''" in text
  assert 'NAME=SHARE of rows, joined by commas' in text


def test_a_mixture_made_by_hand_has_steps():
  config = parse(default.get_config())
  source = Mixture(THREE, 'web=1 | 0.5: code=1')
  by_hand = dataclasses.replace(
    config, data=dataclasses.replace(config.data, source=source)
  )
  with pytest.raises(UserError, match='0.5 must be a number of steps here'):
    source.check('data.source', by_hand)
