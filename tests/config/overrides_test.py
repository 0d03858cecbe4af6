"""Overrides: kinds by name, in any order, and where a field that is not there is now."""

import itertools

import pytest
from ml_collections import ConfigDict, FieldReference

from configs import default, images
from elas_jax.common.errors import UserError
from elas_jax.config import schema
from elas_jax.config.overrides import apply, choose, of_another_kind, set_field
from elas_jax.config.parsing import parse


def tree(*flags, config=default):
  """The parsed config with these overrides, as a tree."""
  found = config.get_config()
  apply(found, [f'--config.{flag}' for flag in flags])
  return schema.tree(parse(found))


def refused(*flags, config=default):
  with pytest.raises(UserError) as error:
    tree(*flags, config=config)
  assert '\n' not in str(error.value)
  return str(error.value)


def test_naming_a_kind_resets_its_section():
  assert tree()['model']['linear'] == {
    'kind': 'low_rank',
    'rank': 32,
    'factor_init': 'xavier',
  }
  published = {'kind': 'low_rank', 'rank': 128, 'factor_init': 'xavier'}
  assert tree('model.linear=low_rank')['model']['linear'] == published
  assert tree('model.linear=dense')['model']['linear'] == {'kind': 'dense'}
  sgd = tree('optimizer=sgd')['optimizer']
  assert sgd == {
    'kind': 'sgd',
    'learning_rate': 0.1,
    'embedding_rate': 0.0,
    'clip_norm': 0.0,
    'decay_rules': (),
    'momentum': 0.9,
    'weight_decay': 1e-4,
  }


FLAGS = (
  'model.linear=lora',
  'model.linear.rank=8',
  'model.linear.alpha=4',
  'train.steps=40',
  'schedule=wsd',
  'schedule.decay_steps=0.5',
)


def test_the_order_of_overrides_does_not_matter():
  expected = tree(*FLAGS)
  assert expected['model']['linear'] == {
    'kind': 'lora',
    'rank': 8,
    'alpha': 4.0,
    'merge_every': 0,
  }
  assert expected['schedule']['decay_steps'] == 20
  assert tree(*reversed(FLAGS)) == expected
  for first, second in itertools.permutations(FLAGS[:3], 2):
    rest = [flag for flag in FLAGS if flag not in (first, second)]
    assert tree(second, *rest, first) == expected


def test_the_last_of_several_values_counts():
  assert tree('model.linear.rank=8', 'model.linear.rank=9')['model']['linear']['rank'] == 9
  both = tree('model.linear=dense', 'model.linear.kind=lora')
  assert both['model']['linear']['kind'] == 'lora'


def test_a_kind_may_be_written_as_a_field():
  assert tree('model.linear.kind=lora') == tree('model.linear=lora')


def test_sections_inside_of_kinds():
  elas = ('model.feed_forward=relu2_two_four', 'model.feed_forward.recipe=soft_activations')
  found = tree('model.feed_forward.recipe.refresh=3', *elas)['model']['feed_forward']
  assert found['recipe'] == {
    'kind': 'soft_activations',
    'backward': 'straight_through',
    'refresh': 3,
  }
  assert found['dense_steps'] == 300  # a tenth of 3,000
  gated = tree('model.feed_forward.activation=gelu', 'model.feed_forward=glu')
  assert gated['model']['feed_forward'] == {
    'kind': 'glu',
    'activation': {'kind': 'gelu', 'approximate': True},
  }
  exact = ('model.linear=kan_bspline', 'model.linear.activation=gelu')
  exact = tree(*exact, 'model.linear.activation.approximate=false')['model']['linear']
  assert exact['activation'] == {'kind': 'gelu', 'approximate': False}


@pytest.mark.parametrize(
  'flags, said',
  [
    (
      ['model.linear.alpha=4'],
      "model.linear.alpha=4: no such field of model.linear='low_rank'; 'lora', 'sltrain' "
      'have it; accepted: model.linear.factor_init, model.linear.rank',
    ),
    (
      ['optimizer.exact_every=4'],
      "optimizer.exact_every=4: no such field of optimizer='adamw'; 'loro' has it; ",
    ),
    (
      ['model.linear.rnak=4'],
      "model.linear.rnak=4: no such field of model.linear='low_rank'; did you mean "
      'model.linear.rank? accepted: ',
    ),
    (
      ['model.linear=dense', 'model.linear.x=4'],
      "model.linear.x=4: no such field of model.linear='dense'; accepted: none",
    ),
    (
      ['model.feed_forward.recipe=top2'],
      "model.feed_forward.recipe=top2: no such field of model.feed_forward='mlp'; "
      "'relu2_two_four' has it; ",
    ),
    (
      ['model.feed_forward=relu2_two_four', 'model.feed_forward.recipe.refresh=3'],
      'model.feed_forward.recipe.refresh=3: no such field of model.feed_forward.recipe='
      "'top2'; 'soft_activations' has it; accepted: model.feed_forward.recipe.backward",
    ),
    (['model.linear=loar'], "model.linear='loar': did you mean 'lora'? must be one of 'co"),
    (['model.linear='], "model.linear='': must be one of 'cola', 'dense', "),
    (['model.linear.kind=loar'], "model.linear='loar': did you mean 'lora'? must be one"),
    (['optimizer=loor'], "optimizer='loor': did you mean 'loro'? must be one of 'adamw', "),
    (['optimizer.learning_rate.x=1'], 'optimizer.learning_rate.x=1: no such field; optimi'),
    (['train=3'], 'train=3: is a section; accepted: train.accumulation, '),
    (['model.linear.rank=0.5'], "model.linear.rank='0.5': must be of type int"),
  ],
)
def test_what_is_not_there_is_refused_with_what_is(flags, said):
  for order in (flags, flags[::-1]):
    assert refused(*order).startswith(said)


@pytest.mark.parametrize(
  'flag, now',
  [
    ('model.rank=16', 'model.linear.rank'),
    ('model.alpha=16', 'model.linear.alpha'),
    ('model.quadratic_form=full', 'model.linear.form'),
    ('model.kan.grid=16', 'model.linear.grid'),
    ('model.heads=4', 'model.attention.heads'),
    ('model.norm_epsilon=1e-5', 'model.norm.epsilon'),
    ('model.two_four_rule=mvue', 'model.feed_forward.recipe'),
    ('model.two_four_backward=exact', 'model.feed_forward.recipe.backward'),
    ('optimizer.warmup_steps=5', 'schedule.warmup_steps'),
    ('optimizer.final_fraction=0.1', 'schedule.final_fraction'),
    ('optimizer.schedule=wsd', 'schedule'),
    ('optimizer.name=loro', 'optimizer'),
    ('optimizer.projection_rank=8', 'optimizer.rank'),
    ('optimizer.merge_every=8', 'model.linear.merge_every'),
    ('data.path=x', 'data.source.path or data.source.data_dir'),
    ('eval.tokens=9', 'eval.units'),
  ],
)
def test_a_field_that_has_moved_is_pointed_to(flag, now):
  assert f'; did you mean {now}? ' in refused(flag)


def test_only_a_field_that_takes_the_value_is_meant():
  """A network has the optimiser's field of embeddings, and refuses all but 0 in it."""
  meant = '; did you mean optimizer.embedding_rate? '
  assert meant in refused('train.embedding_rat=0.01')
  assert meant in refused('model.embedding_std=0', config=images)
  assert 'did you mean' not in refused('model.embedding_std=0.01', config=images)
  assert meant in refused('model.embedding_std=x', config=images)  # of no type at all
  assert 'did you mean data.source.kind or ' in refused('data.knd=3')


@pytest.mark.parametrize(
  'flag, now',
  [
    ('model.layer=dense', 'model.linear'),
    ('model.heads=4', 'model.architecture.attention.heads'),
    ('model.patch=4', 'model.architecture.patch'),
    ('data.noise=0.1', 'data.source.noise'),
  ],
)
def test_a_field_of_networks_that_has_moved_is_pointed_to(flag, now):
  assert f'; did you mean {now}? ' in refused(flag, config=images)


@pytest.mark.parametrize(
  'config, flag, now',
  [
    (default, 'model.feed_forward=swiglu', 'glu with model.feed_forward.activation=silu'),
    (default, 'model.feed_forward=relu2', 'mlp with model.feed_forward.activation=relu2'),
    (default, 'data.tokenizer=t5/tokenizer.json', 'file with data.tokenizer.path=t5/token'),
    (default, 'data.source=c4/en', 'tfds with data.source.name=c4/en'),
    (images, 'data.source=mnist', 'tfds_images with data.source.name=mnist'),
    (images, 'data.source=bessel', 'function with data.source.name=bessel'),
    (images, 'data.source=rings', 'shape with data.source.name=rings'),
  ],
)
def test_a_value_that_is_a_kind_now_is_pointed_to(config, flag, now):
  path, _, value = flag.partition('=')
  said = refused(flag, config=config)
  assert said.startswith(f'{path}={value!r}: is now {path}={now}')
  assert '; must be one of ' in said


def test_where_a_source_is_meant_it_is_named():
  assert refused('data.source=digts', config=images).startswith(
    "data.source='digts': did you mean 'digits'? must be one of "
  )


@pytest.mark.parametrize('flags', list(itertools.permutations(FLAGS[3:])))
def test_a_share_of_steps_is_that_of_train_steps(flags):
  found = tree('schedule.warmup_steps=0.1', *flags)
  assert found['schedule']['warmup_steps'] == 4
  assert found['schedule']['decay_steps'] == 20


def test_shares_follow_the_steps_that_come_after():
  config = default.get_config()
  set_field(config, 'schedule.warmup_steps', 0.1)
  for steps, expected in ((30, 3), (700, 70), (10, 1)):
    config.train.steps = steps
    assert parse(config).schedule.warmup_steps == expected


@pytest.mark.parametrize(
  'text, said',
  [
    ('1.5', 'must be a number of steps, or between 0 and 1, a share of train.steps'),
    ('1.0', 'must be a number of steps, as 1, or a share of train.steps below 1'),
    ('-0.1', 'must be a number of steps, or between 0 and 1, a share of train.steps'),
    ('True', 'must be of type int'),
    ('nan', 'must be of type int'),
    ('-1', 'must be at least 0'),
    ('3001', 'must be at most train.steps=3000'),
  ],
)
def test_what_is_no_number_of_steps_is_refused(text, said):
  message = refused(f'schedule.warmup_steps={text}')
  assert message.startswith('schedule.warmup_steps=')
  assert said in message


def test_whole_numbers_of_steps_may_be_floats():
  assert tree('schedule.warmup_steps=2.0')['schedule']['warmup_steps'] == 2
  assert tree('schedule.warmup_steps=0')['schedule']['warmup_steps'] == 0


@pytest.mark.parametrize('method', ['elas', 'loro', 'loro_relu2'])
def test_what_a_config_file_derives_from_a_phase_follows_a_share_of_steps(method):
  config = default.get_config(method)
  apply(config, ['--config.schedule.warmup_steps=0.1'])
  for steps, warmup in ((700, 70), (100, 10), (33, 3)):
    config.train.steps = steps
    schedule = parse(config).schedule
    assert (schedule.warmup_steps, schedule.decay_steps) == (warmup, steps - 2 * warmup)
  apply(config, ['--config.schedule.warmup_steps=2'])
  assert parse(config).schedule.decay_steps == 33 - 2 * 2
  set_field(config, 'schedule.warmup_steps', 0.25)
  assert parse(config).schedule.decay_steps == 33 - 2 * 8


def test_a_kind_may_keep_what_both_have():
  config = default.get_config()
  choose(config, 'optimizer', 'sgd', keep=True, momentum=0.5)
  assert (config.optimizer.learning_rate, config.optimizer.momentum) == (2e-3, 0.5)
  assert config.optimizer.weight_decay == 0.1
  choose(config, 'optimizer', 'sgd')
  assert (config.optimizer.learning_rate, config.optimizer.momentum) == (0.1, 0.9)


def test_kept_phases_still_follow_the_steps():
  config = default.get_config()
  choose(config, 'schedule', 'wsd', keep=True)
  config.train.steps = 40
  assert parse(config).schedule.warmup_steps == 4


# Field -> whether the default config, low rank with AdamW and a plain MLP, has it.
FIELDS = {
  'seed': True,
  'model.width': True,
  'model.linear': True,
  'model.linear.rank': True,
  'optimizer.b2': True,
  'model.linear.alpha': False,
  'optimizer.rank': False,
  'schedule.restart_every': False,
  'model.feed_forward.recipe.backward': False,
}


@pytest.mark.parametrize('path', FIELDS)
def test_fields_of_other_kinds_are_told_from_those_of_the_chosen(path):
  assert of_another_kind(default.get_config(), path) == (not FIELDS[path])


@pytest.mark.parametrize('path', ['model.linear.rnak', 'optimizer.recipe', 'seed.x', 'x'])
def test_a_field_that_no_kind_has_is_not_of_another_one(path):
  config = default.get_config()
  assert not of_another_kind(config, path)
  with pytest.raises(UserError, match='no such field'):
    apply(config, [f'--config.{path}=1'])


def test_what_is_chosen_counts():
  config = default.get_config()
  choose(config, 'model.feed_forward', 'relu2_two_four')
  choose(config, 'optimizer', 'galore')
  for path in ('model.feed_forward.recipe.backward', 'optimizer.rank'):
    assert not of_another_kind(config, path)
  assert of_another_kind(config, 'model.feed_forward.activation')


def made(model, *flags, **sections):
  """The parsed config of a file of one's own, as a tree."""
  config = ConfigDict({'model': model, **sections})
  apply(config, [f'--config.{flag}' for flag in flags])
  return schema.tree(parse(config))


def test_a_section_that_is_a_name_has_its_fields():
  lora = made({'linear': 'lora'}, 'model.linear.rank=8')['model']['linear']
  assert lora == {'kind': 'lora', 'rank': 8, 'alpha': 32.0, 'merge_every': 0}
  given = FieldReference('lora')
  assert made({'linear': given}, 'model.linear.rank=8')['model']['linear'] == lora
  recipe = 'model.feed_forward.recipe'
  given = {'feed_forward': {'kind': 'relu2_two_four', 'recipe': 'top2'}}
  found = made(given, f'{recipe}.backward=transposable')['model']['feed_forward']
  assert found['recipe'] == {'kind': 'top2', 'backward': 'transposable'}
  found = made({'feed_forward': 'relu2_two_four'}, f'{recipe}=soft_weights')
  assert found['model']['feed_forward']['recipe']['kind'] == 'soft_weights'
  schedule = made({}, 'schedule.decay_steps=0.5', schedule='wsd')['schedule']
  assert (schedule['kind'], schedule['decay_steps']) == ('wsd', 350)
  config = ConfigDict({'optimizer': 'sgd'})
  choose(config, 'optimizer', 'adamw', keep=True)
  assert parse(config).optimizer == parse(ConfigDict()).optimizer


def test_what_refers_to_a_field_follows_an_override():
  config = default.get_config()
  config.data.batch_size = config.eval.get_ref('batch_size')
  config.schedule.warmup_steps = config.train.get_ref('steps')
  apply(config, ['--config.eval.batch_size=16', '--config.train.steps=9'])
  assert (config.data.batch_size, config.schedule.warmup_steps) == (16, 9)


@pytest.mark.parametrize(
  'model, flags, said',
  [
    ('decoder', ['model.width=8'], "model='decoder': must be a section of fields"),
    ('decoder', ['model.linear.rank=8'], "model='decoder': must be a section of fields"),
    (None, ['model.linear=lora'], 'model=None: must be a section of fields'),
    ({'linear': None}, ['model.linear.rank=8'], 'model.linear=None: must be one of '),
    ({'linear': 'loar'}, ['model.linear.rank=8'], "model.linear='loar': did you mean"),
    ({'linear': {'rank': 4}}, ['model.linear.rank=8'], 'model.linear=None: must be one'),
  ],
)
def test_what_is_no_section_has_no_fields(model, flags, said):
  with pytest.raises(UserError) as error:
    made(model, *flags)
  assert str(error.value).startswith(said)


@pytest.mark.parametrize('path', ['model.linear.rank', 'model', 'mesh', 'seed'])
def test_only_what_is_of_a_kind_has_one(path):
  assert refused(f'{path}.kind=3').startswith(f'{path}.kind=3: no such field')
