"""Every config loads and round-trips; what a tree does not say has its default."""

import json
import pathlib

import pytest

from configs import (
  c4,
  default,
  functions,
  images,
  methods,
  plm,
  preference,
  proxy,
  proxy_text,
  sft,
  text,
)
from elas_jax.common.errors import UserError
from elas_jax.config import schema
from elas_jax.config.config import at_step, defaults, to_json
from elas_jax.config.overrides import set_fields
from elas_jax.config.parsing import parse, parse_stored

CONFIGS = (
  {
    'default': default.get_config,
  }
  | {
    f'default:{method}': lambda method=method: default.get_config(method)
    for method in methods.METHODS
  }
  | {
    f'{module.__name__.split(".")[-1]}:{method}': lambda module=module, method=method: (
      module.get_config(method)
    )
    for module in (proxy, proxy_text)
    for method in methods.METHODS
  }
  | {
    'text': lambda: with_fields(text.get_config(), {'data.source.path': 'folder'}),
    'preference': lambda: with_fields(
      preference.get_config(), {'data.source.path': 'folder', 'restore': 'runs/sft'}
    ),
  }
  | {
    f'sft:{phase}': lambda phase=phase: with_fields(
      sft.get_config(phase), {'data.source.path': 'folder'}
    )
    for phase in sft.PHASES
  }
  | {
    f'c4:{size},{method}': lambda size=size, method=method: c4.get_config(
      f'{size},{method}'
    )
    for size in c4.SIZES
    for method in methods.METHODS
  }
  | {f'plm:{size}': lambda size=size: plm.get_config(size) for size in plm.SIZES}
  | {
    f'images:{dataset},{model}': lambda dataset=dataset, model=model: images.get_config(
      f'{dataset},{model}'
    )
    for dataset in images.DATASETS
    for model in images.models()
  }
  | {
    f'functions:{task},{model}': lambda task=task, model=model: functions.get_config(
      f'{task},{model}'
    )
    for task in (*functions.FUNCTIONS, *functions.SHAPES)
    for model in functions.MODELS
  }
)


def with_fields(config, fields):
  set_fields(config, fields)
  return config


def test_every_config_file_is_tested():
  files = {p.stem for p in pathlib.Path(default.__file__).parent.glob('*.py')}
  shared = {'__init__', 'methods', 'rows'}
  assert files - shared == {name.partition(':')[0] for name in CONFIGS}


@pytest.mark.parametrize('name', CONFIGS)
def test_config_parses_and_round_trips(name):
  config = parse(CONFIGS[name]())
  assert parse_stored(json.loads(to_json(config))) == config
  hash(config)  # a static argument of jitted functions


def test_config_files_say_how_to_run_them():
  for module in (default, c4, text, plm, sft, images, functions, preference):
    for word in (
      'python -m elas_jax.train --config=configs/',
      'Hardware:',
      'Expected:',
    ):
      assert word in module.__doc__, module.__name__


def test_the_sample_follows_the_length_of_a_sequence():
  for length, expected in ((128, 120), (64, 60), (1, 0)):
    config = parse(with_fields(default.get_config(), {'data.sequence_length': length}))
    assert config.eval.sample_tokens == expected


def test_warmup_follows_the_number_of_steps():
  config = with_fields(default.get_config(), {'train.steps': 30})
  assert parse(config).schedule.warmup_steps < 30


def test_integers_are_accepted_for_numbers():
  config = parse(with_fields(default.get_config(), {'optimizer.learning_rate': 1}))
  assert config.optimizer.learning_rate == 1.0


@pytest.mark.parametrize('task', ['language', 'classification', 'regression'])
def test_what_a_tree_does_not_say_has_its_default(task):
  given = {'task': task, 'train': {'steps': 40}}
  if task == 'regression':
    given['data'] = {'source': {'kind': 'function'}}
    given['model'] = {'input_shape': (2,), 'outputs': 1}
  config = parse(given)
  assert config.train.steps == 40 and config.train.log_every == 50
  assert config.schedule.warmup_steps == 2  # a twentieth of them
  whole = defaults(task)
  whole['train']['steps'] = 40
  if task == 'regression':
    whole['data']['source'] = 'function'
    whole['model'] |= given['model']
  assert parse(whole) == config


def test_a_kind_may_be_named_without_fields():
  config = parse({'model': {'linear': 'lora', 'feed_forward': {'kind': 'glu'}}})
  assert schema.tree(config)['model']['linear'] == {
    'kind': 'lora',
    'rank': 128,
    'alpha': 32.0,
    'merge_every': 0,
  }
  assert schema.tree(config)['model']['feed_forward'] == {
    'kind': 'glu',
    'activation': {'kind': 'silu'},
  }


@pytest.mark.parametrize(
  'tree, said',
  [
    ({'eval': 3}, 'eval=3: must be a section of fields'),
    (
      {'model': {'linear': 3}},
      "model.linear=3: must be a section with its 'kind', one of ",
    ),
    (
      {'model': {'linear': {'rank': 3}}},
      "model.linear={'rank': 3}: must be a section with",
    ),
    ({'task': 'translation'}, "task='translation': must be one of 'language', 'classif"),
    ({'model': {'rnak': 4}}, 'model.rnak=4: no such field; accepted: model.attention, '),
    ({'eval': {'units': 'all'}}, "eval.units='all': must be of type int"),
  ],
)
def test_a_tree_that_is_no_config_is_refused_by_name(tree, said):
  with pytest.raises(UserError) as error:
    parse(tree)
  assert str(error.value).startswith(said)


def test_dense_warm_up_is_the_same_model_without_pruning():
  fields = {'model.feed_forward.dense_steps': 7}
  config = parse(with_fields(default.get_config('elas'), fields))
  at = lambda step: schema.tree(at_step(config, step).model)['feed_forward']
  relu2 = {'kind': 'mlp', 'activation': {'kind': 'relu2'}}
  assert [at(1), at(7)] == [relu2, relu2]
  assert at(8)['kind'] == 'relu2_two_four'
  assert at_step(config, 8) == config
  plain = parse(default.get_config('low_rank'))
  assert at_step(plain, 1) == plain
