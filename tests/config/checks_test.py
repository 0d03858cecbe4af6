"""Values that cannot be are refused by name."""

import dataclasses

import pytest

from configs import default, functions, text
from elas_jax.common.errors import UserError
from elas_jax.common.limits import quoted
from elas_jax.config.checks import check_devices, profile_window
from elas_jax.config.config import to_tree
from elas_jax.config.overrides import set_fields
from elas_jax.config.parsing import parse, parse_stored
from elas_jax.systems.feed_forwards import FEED_FORWARDS


def with_fields(config, fields):
  set_fields(config, fields)
  return config


def refusal(config, fields):
  """What the error says."""
  with pytest.raises(UserError) as error:
    parse(with_fields(config, fields))
  return str(error.value)


@pytest.mark.parametrize(
  'name, value, said',
  [
    ('train.steps', -1, 'train.steps=-1: must be at least 1'),
    ('model.linear.rank', -1, 'at least 1'),
    ('model.linear.rank', 129, 'at most 128'),
    ('model.linear.rank', 'x', 'of type int'),
    ('model.linear.rank', True, 'of type int'),
    ('model.attention.heads', 7, 'must divide model.width=128'),
    ('model.attention.heads', 128, 'must be even'),
    ('model.linear', 'dens', "'cola', 'dense', 'kan_af', "),
    ('model.feed_forward', 'gelu', f'must be one of {quoted(sorted(FEED_FORWARDS))}'),
    ('model.attention', 'mlp', "'mha'"),
    ('model.remat', 'some', "'none'"),
    ('model.linear.factor_init', 'svd', "one of 'xavier', 'spectral'"),
    ('optimizer', 'adam', "one of 'adamw', 'galore', 'loro', 'sgd'"),
    ('model.param_dtype', 'float16', "one of 'float32', 'bfloat16'"),
    ('model.norm.epsilon', 0.0, 'above 0'),
    ('data.batch_size', 0, 'at least 1'),
    ('data.sequence_length', 0, 'at least 1'),
    ('data.source.validation_share', 1.0, 'between 0 and 1'),
    ('data.protocol', 'rows', "'packed', 'document'"),
    ('data.tokenizer', '', "must be one of 'bytes', 'file'"),
    ('data.cache_dir', '', 'must not be empty'),
    ('optimizer.learning_rate', 0.0, 'above 0'),
    ('optimizer.learning_rate', float('nan'), 'finite'),
    ('schedule', 'step', "'cosine'"),
    ('schedule.warmup_steps', 10**6, 'at most train.steps'),
    ('optimizer.b1', 1.0, 'below 1'),
    ('schedule.final_fraction', 2.0, 'between 0 and 1'),
    ('optimizer.decay_rules', (('(', 1.0),), 'not a regex'),
    ('optimizer.decay_rules', (('a', 1.0, 2),), 'must be a pair'),
    ('train.steps', 0, 'at least 1'),
    ('train.accumulation', 3, 'must divide data.batch_size=8'),
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
    ('data.sequence_length', 2**31, 'at most 4194304'),
    ('data.batch_size', 10**30, 'at most 2147483647'),
    ('data.read_threads', 10**9, 'at most 4096'),
    ('data.prefetch', 10**9, 'at most 4096'),
    ('data.processes', 10**9, 'at most 4096'),
    ('train.steps', 2**63, 'at most 2147483647'),
    ('train.log_every', 10**30, 'at most 2147483647'),
    ('checkpoint.every', 10**30, 'at most 2147483647'),
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
  message = refusal(default.get_config(), {name: value})
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
    ('model.linear.grid_max', 1e300, 'finite, at most 1e+18'),
    # Knots that are the same in float32, and a step whose square is zero there.
    (
      'model.linear.grid_max',
      -1 + 1e-9,
      'must be larger than model.linear.grid_min=-1.0 by',
    ),
    ('data.source.noise', 1e30, 'finite, at most 1e+18'),
    ('data.source.draw_seed', 2**32, 'at most 4294967295'),
  ],
)
def test_bad_value_of_a_network_is_refused_by_name(name, value, said):
  message = refusal(functions.get_config('bessel,bspline'), {name: value})
  assert message.startswith(f'{name}='), message
  assert said in message


# Of a kind of default.py's sections.
SOFT = {
  'model.feed_forward': 'relu2_two_four',
  'model.feed_forward.recipe': 'soft_activations',
}
BSPLINE = {'model.linear': 'kan_bspline'}


@pytest.mark.parametrize(
  'kinds, name, value, said',
  [
    ({'model.linear': 'sltrain'}, 'model.linear.sparse_share', 0.0, 'above 0'),
    ({'model.linear': 'lost'}, 'model.linear.sparse_share', 1.0, 'below 1'),
    ({'model.linear': 'lost'}, 'model.linear.gamma', 1.5, 'between 0 and 1'),
    ({'model.linear': 'lora'}, 'model.linear.merge_every', -1, 'at least 0'),
    ({'model.linear': 'lora'}, 'model.linear.merge_every', 10**30, 'at most 2147483647'),
    ({'model.linear': 'quadratic'}, 'model.linear.form', 'cubic', "one of 'full', "),
    ({'model.linear': 'quadratic'}, 'model.linear.form', 'square', 'no linear branch'),
    (
      {'model.linear': 'quadratic', 'model.linear.relinear': 'weights'},
      'model.linear.relinear_g',
      1e4,
      'between 0 and 500, 1 / optimizer.learning_rate',
    ),
    (BSPLINE, 'model.linear.grid', 10**6, 'at most 10000'),
    (BSPLINE, 'model.linear.order', 10**6, 'at most 100'),
    (BSPLINE, 'model.linear.order', 50, 'at most model.linear.grid='),
    (SOFT, 'model.feed_forward.recipe', 'top3', "'top2'"),
    (SOFT, 'model.feed_forward.recipe.backward', 'ste', "'straight_through'"),
    (SOFT, 'model.feed_forward.recipe.refresh', 0, 'at least 1'),
    (SOFT, 'model.feed_forward.recipe.refresh', 10**30, 'at most 2147483647'),
    (SOFT, 'model.feed_forward.implementation', 'triton', "one of 'auto', 'xla', 'mosaic'"),
    (SOFT, 'model.feed_forward.dense_steps', -1, 'at least 0'),
    ({'optimizer': 'loro'}, 'optimizer.exact_every', 0, 'at least 1'),
    ({'optimizer': 'loro'}, 'optimizer.exact_every', 10**30, 'at most 2147483647'),
    ({'optimizer': 'galore'}, 'optimizer.every', 10**30, 'at most 2147483647'),
    ({'optimizer': 'galore'}, 'optimizer.rank', 0, 'at least 1'),
    ({'optimizer': 'galore'}, 'optimizer.scale', -1.0, 'at least 0'),
    ({'optimizer': 'sgd'}, 'optimizer.momentum', 1.0, 'below 1'),
    (
      {'schedule': 'cosine_restarts'},
      'schedule.restart_every',
      10**30,
      'at most 2147483647',
    ),
    ({'schedule': 'wsd'}, 'schedule.decay_steps', -1, 'at least 0'),
    ({'model.norm': 'layer'}, 'model.norm.epsilon', 0.0, 'above 0'),
    ({}, 'model.position.base', 0.0, 'above 0'),
    ({}, 'data.source.validation_share', 0.0, 'between 0 and 1'),
    ({'data.source': 'tfds'}, 'data.source.name', '', 'names of prepared TFDS sets'),
    ({'data.tokenizer': 'file'}, 'data.tokenizer.path', '', 'tokenizer.json'),
  ],
)
def test_bad_value_of_a_kind_is_refused_by_name(kinds, name, value, said):
  if kinds.get('optimizer') == 'galore':
    kinds = {'model.linear': 'dense'} | kinds
  message = refusal(default.get_config(), kinds | {name: value})
  assert message.startswith(f'{name}='), message
  assert said in message


def test_an_array_that_no_machine_holds_is_refused():
  config = with_fields(default.get_config('full'), {'model.width': 2**28})
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
  fields = {'optimizer.weight_decay': 1e30, 'optimizer.decay_rules': (('.*', 1e30),)}
  config = with_fields(default.get_config(), fields)
  with pytest.raises(UserError, match=r'^optimizer\.weight_decay \* factor.*finite'):
    parse(config)


def test_the_largest_numbers_that_can_be_are_taken():
  config = parse(with_fields(default.get_config(), {'train.steps': 2**31 - 1}))
  assert config.schedule.warmup_steps == (2**31 - 1) // 10
  assert parse(with_fields(default.get_config(), {'seed': 2**32 - 1})).seed == 2**32 - 1
  for value in (3.4028234e38, 1.1754944e-38):
    parse(with_fields(default.get_config(), {'optimizer.epsilon': value}))


def test_text_files_need_a_path():
  with pytest.raises(UserError, match="data.source.path='': text_files needs a folder"):
    parse(text.get_config())


def test_mesh_must_fit_the_devices():
  config = parse(default.get_config())
  assert check_devices(config, 4) == (4, 1, 1)

  def mesh(**sizes):
    return dataclasses.replace(config, mesh=dataclasses.replace(config.mesh, **sizes))

  assert check_devices(mesh(data=2, tensor=-1), 8) == (2, 1, 4)
  with pytest.raises(UserError, match=r'mesh=\(3, 1, 1\).*number of devices, 4'):
    check_devices(mesh(data=3), 4)
  with pytest.raises(UserError, match='data.batch_size=8.*multiple of 32'):
    check_devices(mesh(data=32), 32)
  with pytest.raises(UserError, match='mesh'):
    parse_stored(to_tree(mesh(data=-1, fsdp=-1)))


def test_profile_window():
  config = parse(with_fields(default.get_config(), {'profile_steps': '10,15'}))
  assert profile_window(config) == (10, 15)
  assert profile_window(parse(default.get_config())) is None
