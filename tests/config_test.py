"""Every config loads and round-trips; every bad value is refused by name."""

import dataclasses
import json
import pathlib

import pytest

from configs import c4, default, functions, images, methods, text
from elas_jax.common.errors import UserError
from elas_jax.common.fields import divides
from elas_jax.config.checks import check_devices
from elas_jax.config.config import at_step, parse, profile_window, to_json

CONFIGS = (
  {
    'default': default.get_config,
  }
  | {
    f'default:{method}': lambda method=method: default.get_config(method)
    for method in methods.METHODS
  }
  | {
    'text': lambda: _with(text.get_config(), 'data.path', 'folder'),
  }
  | {
    f'c4:{size},{method}': lambda size=size, method=method: c4.get_config(
      f'{size},{method}'
    )
    for size in c4.SIZES
    for method in methods.METHODS
  }
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


MOSAIC = {'model.two_four_implementation': 'mosaic'}
BFLOAT16 = {'model.compute_dtype': 'bfloat16'}
FORCED = "model.two_four_implementation='mosaic'"


def _with(config, name, value):
  section, _, field = name.rpartition('.')
  target = config[section] if section else config
  with target.unlocked(), target.ignore_type():
    target[field] = value
  return config


def test_every_config_file_is_tested():
  files = {p.stem for p in pathlib.Path(default.__file__).parent.glob('*.py')}
  shared = {'__init__', 'methods', 'rows'}
  assert files - shared == {name.partition(':')[0] for name in CONFIGS}


@pytest.mark.parametrize('name', CONFIGS)
def test_config_parses_and_round_trips(name):
  config = parse(CONFIGS[name]())
  assert parse(json.loads(to_json(config))) == config
  hash(config)  # a static argument of jitted functions


def test_config_files_say_how_to_run_them():
  for module in (default, c4, text, images, functions):
    for word in (
      'python -m elas_jax.train --config=configs/',
      'Hardware:',
      'Expected:',
    ):
      assert word in module.__doc__, module.__name__


@pytest.mark.parametrize(
  'name, value, said',
  [
    ('model.rank', -1, 'at least 1'),
    ('model.rank', 193, 'at most 192'),
    ('model.rank', 'x', 'of type int'),
    ('model.rank', True, 'of type int'),
    ('model.heads', 7, 'must divide model.width=192'),
    ('model.heads', 64, 'must be even'),
    ('model.kv_heads', 3, 'must divide model.heads=4; accepted: 1, 2, 4'),
    ('model.linear', 'dens', "'cola', 'dense', 'kan_af', "),
    ('model.feed_forward', 'gelu', "'relu2'"),
    ('model.attention', 'mla', "'mha'"),
    ('model.remat', 'some', "'none'"),
    ('model.factor_init', 'svd', "one of 'xavier', 'spectral'"),
    ('model.sparse_share', 0.0, 'above 0'),
    ('model.gamma', 1.5, 'between 0 and 1'),
    ('model.two_four_rule', 'top3', "'top2'"),
    ('model.two_four_backward', 'ste', "'straight_through'"),
    ('model.two_four_implementation', 'triton', "one of 'auto', 'xla', 'mosaic'"),
    ('model.two_four_dense_steps', -1, 'at least 0'),
    ('optimizer.name', 'adam', "one of 'adamw', 'sgd', 'loro', 'galore'"),
    ('optimizer.exact_every', 0, 'at least 1'),
    ('optimizer.merge_every', 5, "needs model.linear='lora', not 'low_rank'"),
    ('model.param_dtype', 'float16', "one of 'float32', 'bfloat16'"),
    ('model.norm_epsilon', 0.0, 'above 0'),
    ('data.batch_size', 0, 'at least 1'),
    ('data.sequence_length', 0, 'at least 1'),
    ('data.validation_share', 1.0, 'between 0 and 1'),
    ('data.protocol', 'rows', "'packed', 'document'"),
    ('data.tokenizer', '', 'must not be empty'),
    ('optimizer.learning_rate', 0.0, 'above 0'),
    ('optimizer.learning_rate', float('nan'), 'finite'),
    ('optimizer.schedule', 'step', "'cosine'"),
    ('optimizer.warmup_steps', 10**6, 'at most train.steps'),
    ('optimizer.b1', 1.0, 'below 1'),
    ('optimizer.final_fraction', 2.0, 'between 0 and 1'),
    ('optimizer.decay_rules', (('(', 1.0),), 'not a regex'),
    ('optimizer.decay_rules', (('a', 1.0, 2),), 'must be a pair'),
    ('train.steps', 0, 'at least 1'),
    ('train.accumulation', 3, 'must divide data.batch_size=16'),
    ('mesh.data', 0, 'at least 1, or -1'),
    ('checkpoint.keep_latest', 0, 'at least 1'),
    ('eval.every', 0, 'at least 1'),
    ('profile_steps', '5', "'first,last'"),
    ('profile_steps', '9,5', "'first,last'"),
    pytest.param('profile_steps', '9' * 5000 + ',5', "'first,last'", id='long steps'),
    ('profile_steps', '\u0661,\u0662', "'first,last'"),
    ('model.width', 2**31, 'at most 268435456'),
    ('model.layers', 10**30, 'at most 2147483647'),
    ('model.vocab_size', 2**31, 'at most 2147483647'),
    ('model.unroll', 10**6, 'at most 1000'),
    ('model.two_four_refresh', 10**30, 'at most 2147483647'),
    ('model.kan.grid', 10**6, 'at most 10000'),
    ('model.kan.order', 10**6, 'at most 100'),
    ('data.sequence_length', 2**31, 'at most 4194304'),
    ('data.batch_size', 10**30, 'at most 2147483647'),
    ('data.read_threads', 10**9, 'at most 4096'),
    ('data.prefetch', 10**9, 'at most 4096'),
    ('data.processes', 10**9, 'at most 4096'),
    ('train.steps', 2**63, 'at most 2147483647'),
    ('train.log_every', 10**30, 'at most 2147483647'),
    ('checkpoint.every', 10**30, 'at most 2147483647'),
    ('optimizer.exact_every', 10**30, 'at most 2147483647'),
    ('optimizer.projection_every', 10**30, 'at most 2147483647'),
    ('optimizer.merge_every', 10**30, 'at most 2147483647'),
    ('optimizer.restart_every', 10**30, 'at most 2147483647'),
    ('eval.sample_tokens', 2**31, 'at most 2147483647'),
    ('eval.sample_tokens', 129, 'at most data.sequence_length=128'),
    ('optimizer.epsilon', 1e300, 'finite, at most 3.402823e+38 in size (float32)'),
    ('optimizer.epsilon', 1e-60, '0 or at least 1.175494e-38'),
    ('optimizer.b2', 1 - 1e-12, 'in float32, below 1'),
    ('optimizer.decay_rules', (('.*', 10**400),), 'finite'),
    ('optimizer.decay_rules', (('.*', float('inf')),), 'finite'),
    ('optimizer.decay_rules', (('.*', float('nan')),), 'finite'),
    ('optimizer.decay_rules', (('.*', -1.0),), 'at least 0'),
    ('optimizer.decay_rules', (('.*', True),), 'must be a pair (regex, number)'),
    ('optimizer.decay_rules', (('a{99999999999}', 1.0),), 'not a regex'),
    pytest.param('optimizer.decay_rules', (('(' * 50000, 1.0),), 'not a regex', id='deep'),
    ('optimizer.decay_rules', 5, 'must be pairs (regex, number)'),
    ('optimizer.decay_rules', (('.*', 1e39),), 'finite'),
    ('seed', -1, 'between 0 and 4294967295'),
  ],
)
def test_bad_value_is_refused_by_name(name, value, said):
  with pytest.raises(UserError) as error:
    parse(_with(default.get_config(), name, value))
  message = str(error.value)
  assert message.startswith((f'{name}=', f'{name}:')), message
  assert said in message
  assert '\n' not in message
  assert len(message) < 1000


@pytest.mark.parametrize(
  'name, value, said',
  [
    ('model.depth', 10**9, 'at most 1000'),
    ('model.input_shape', (2**16, 2**16, 1), 'at most 2147483647 entries'),
    ('model.input_shape', (10**30,), 'at most 2147483647'),
    ('model.input_shape', (), 'must be (I,) or (H, W, C)'),
    ('model.kan.grid_max', 1e300, 'finite, at most 1e+18'),
    # Knots that are the same in float32, and a step whose square is zero there.
    ('model.kan.grid_max', -1 + 1e-9, 'must be larger than model.kan.grid_min=-1.0 by'),
    ('data.noise', 1e30, 'finite, at most 1e+18'),
    ('data.draw_seed', 2**32, 'at most 4294967295'),
  ],
)
def test_bad_value_of_a_network_is_refused_by_name(name, value, said):
  with pytest.raises(UserError) as error:
    parse(_with(functions.get_config('bessel,bspline'), name, value))
  message = str(error.value)
  assert message.startswith(f'{name}='), message
  assert said in message


def test_an_array_that_no_machine_holds_is_refused():
  config = _with(default.get_config('full'), 'model.width', 2**28)
  said = '^model.width=268435456: an array of model.layers x model.width x model.width '
  with pytest.raises(
    UserError, match=said + 'would have .* must be at most 9007199254740992'
  ):
    parse(config)


def test_an_integer_that_no_float_holds_is_refused():
  tree = default.get_config().to_dict()
  tree['optimizer']['learning_rate'] = 10**400
  with pytest.raises(UserError, match='^optimizer.learning_rate=1000.*: must be finite'):
    parse(tree)


def test_weight_decay_of_a_path_is_a_number_in_float32():
  config = _with(default.get_config(), 'optimizer.weight_decay', 1e30)
  config = _with(config, 'optimizer.decay_rules', (('.*', 1e30),))
  with pytest.raises(UserError, match=r'^optimizer\.weight_decay \* factor.*finite'):
    parse(config)


def test_the_largest_numbers_that_can_be_are_taken():
  config = parse(_with(default.get_config(), 'train.steps', 2**31 - 1))
  assert config.optimizer.warmup_steps == (2**31 - 1) // 20
  assert parse(_with(default.get_config(), 'seed', 2**32 - 1)).seed == 2**32 - 1
  for value in (3.4028234e38, 1.1754944e-38):
    parse(_with(default.get_config(), 'optimizer.epsilon', value))


def test_the_sample_follows_the_length_of_a_sequence():
  for length, expected in ((128, 120), (64, 60), (1, 0)):
    config = parse(_with(default.get_config(), 'data.sequence_length', length))
    assert config.eval.sample_tokens == expected


@pytest.mark.parametrize(
  'value, whole, said', [(7, 12, '1, 2, 3, 4, 6, 12'), (5, 4, '1, 2, 4')]
)
def test_divisors_are_named(value, whole, said):
  with pytest.raises(UserError) as error:
    divides('a', value, 'b', whole)
  assert str(error.value) == f'a={value}: must divide b={whole}; accepted: {said}'


def test_divisors_of_large_numbers_take_no_time():
  with pytest.raises(UserError, match='accepted: 1, 2147483647$'):
    divides('a', 5, 'b', 2**31 - 1)


def test_unknown_and_missing_fields_are_refused():
  with pytest.raises(UserError, match=r'model\.rnak: no such field'):
    parse(_with(default.get_config(), 'model.rnak', 4))
  tree = default.get_config().to_dict()
  del tree['eval']['tokens']
  with pytest.raises(UserError, match=r'eval\.tokens: missing'):
    parse(tree)
  with pytest.raises(UserError, match='eval=3'):
    parse(tree | {'eval': 3})


def test_text_files_need_a_path():
  with pytest.raises(UserError, match="data.path='': text_files needs a folder"):
    parse(text.get_config())


def test_warmup_follows_the_number_of_steps():
  config = _with(default.get_config(), 'train.steps', 30)
  assert parse(config).optimizer.warmup_steps < 30


def test_integers_are_accepted_for_numbers():
  config = parse(_with(default.get_config(), 'optimizer.learning_rate', 1))
  assert config.optimizer.learning_rate == 1.0


def test_mesh_must_fit_the_devices():
  config = parse(default.get_config())
  assert check_devices(config, 4) == (4, 1, 1)

  def mesh(**sizes):
    return dataclasses.replace(config, mesh=dataclasses.replace(config.mesh, **sizes))

  assert check_devices(mesh(data=2, tensor=-1), 8) == (2, 1, 4)
  with pytest.raises(UserError, match=r'mesh=\(3, 1, 1\).*number of devices, 4'):
    check_devices(mesh(data=3), 4)
  with pytest.raises(UserError, match='data.batch_size=16.*multiple of 32'):
    check_devices(mesh(data=32), 32)
  with pytest.raises(UserError, match='mesh'):
    parse(json.loads(to_json(mesh(data=-1, fsdp=-1))))


def test_profile_window():
  config = parse(_with(default.get_config(), 'profile_steps', '10,15'))
  assert profile_window(config) == (10, 15)
  assert profile_window(parse(default.get_config())) is None


@pytest.mark.parametrize(
  'method, changes, said',
  [
    ('elas', {'model.feed_forward_width': 770}, 'model.feed_forward_width=770: must be a'),
    ('elas', {'model.linear': 'cola', 'optimizer.name': 'adamw'}, "model.linear='cola'"),
    ('elas', {'model.two_four_rule': 'mvue'}, "model.two_four_backward='exact': needs"),
    (
      'elas',
      {'model.two_four_backward': 'split', 'data.sequence_length': 126},
      'data.sequence_length=126: must be a multiple of 4',
    ),
    ('elas', {'model.two_four_rule': 'transposable'}, "model.two_four_rule='transposable'"),
    (
      'elas',
      {'model.two_four_dense_steps': 700},
      'model.two_four_dense_steps=700: must be below train.steps=700',
    ),
    ('low_rank', {'optimizer.name': 'galore'}, "optimizer.name='galore': needs"),
    ('full', {'optimizer.name': 'loro'}, "optimizer.name='loro': needs model.linear="),
    ('loro', {'optimizer.weight_decay': 0.1}, 'optimizer.weight_decay=0.1: must be 0'),
    ('loro', {'model.kv_heads': 1, 'model.rank': 49}, 'model.rank=49: must be at most 48'),
    ('sltrain', {'model.width': 2**16}, 'model.width=65536, model.feed_forward_width='),
    ('cola', {'model.factor_init': 'spectral'}, "model.factor_init='spectral': needs"),
    ('elas', MOSAIC, f"{FORCED}: needs model.compute_dtype='bfloat16', not 'float32'"),
    (
      'loro_relu2',
      MOSAIC | BFLOAT16,
      f"{FORCED}: needs model.feed_forward='relu2_two_four', not 'relu2'",
    ),
    (
      'elas',
      MOSAIC | BFLOAT16 | {'model.two_four_backward': 'split'},
      f"{FORCED}: the products of the backward pass 'split' have no kernels; accepted "
      "are model.two_four_rule='top2' with model.two_four_backward 'exact' or "
      "'transposable'",
    ),
    (
      'elas',
      MOSAIC
      | BFLOAT16
      | {'model.two_four_rule': 'mvue', 'model.two_four_backward': 'straight_through'},
      f"{FORCED}: pruning by the rule 'mvue' has no kernel; accepted are",
    ),
  ],
)
def test_impossible_combination_is_refused_by_name(method, changes, said):
  config = default.get_config(method)
  for name, value in changes.items():
    config = _with(config, name, value)
  with pytest.raises(UserError) as error:
    parse(config)
  assert str(error.value).startswith(said)


def test_any_device_may_read_a_config_that_asks_for_kernels():
  config = default.get_config('elas')
  for name, value in (MOSAIC | BFLOAT16).items():
    config = _with(config, name, value)
  assert parse(config).model.two_four_implementation == 'mosaic'


def test_dense_warm_up_is_the_same_model_without_pruning():
  config = parse(_with(default.get_config('elas'), 'model.two_four_dense_steps', 7))
  assert [at_step(config, step).model.feed_forward for step in (1, 7, 8)] == [
    'relu2',
    'relu2',
    'relu2_two_four',
  ]
  assert at_step(config, 8) == config
  plain = parse(default.get_config('low_rank'))
  assert at_step(plain, 1) == plain
