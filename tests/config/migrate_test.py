"""Stored configs of today and of other versions."""

import json

import pytest

from configs import default
from elas_jax.common.errors import UserError
from elas_jax.config.config import to_json, to_tree
from elas_jax.config.migrate import VERSION, lifted
from elas_jax.config.overrides import choose
from elas_jax.config.parsing import parse, parse_stored


def stored(method='elas'):
  return json.loads(to_json(parse(default.get_config(method))))


def test_stored_configs_say_their_version():
  assert VERSION == 4
  assert stored()['version'] == 4
  assert 'version' not in lifted(stored())


@pytest.mark.parametrize('version', [VERSION + 1, 10**6, -1, 1.0, True, '1', None])
def test_other_versions_are_refused_in_one_line(version):
  with pytest.raises(UserError) as error:
    parse_stored(stored() | {'version': version})
  assert str(error.value) == (
    f'version={version!r}: this code reads stored configs of versions 0 to 4'
  )


def of_version_3(**model):
  return lifted({'version': 3, 'model': model})['model']


@pytest.mark.parametrize(
  'kv_heads, now',
  [
    (0, {'kind': 'mha', 'heads': 8}),
    (8, {'kind': 'mha', 'heads': 8}),
    (2, {'kind': 'gqa', 'heads': 8, 'kv_heads': 2}),
  ],
)
def test_heads_that_shared_keys_are_a_kind_of_their_own(kv_heads, now):
  """In a decoder, among the mixers of a pattern, and in a vision transformer."""
  old = {'kind': 'mha', 'heads': 8, 'kv_heads': kv_heads}
  assert of_version_3(attention=old) == {'attention': now}
  vit = of_version_3(architecture={'kind': 'vit', 'patch': 2, 'attention': old})
  assert vit == {'architecture': {'kind': 'vit', 'patch': 2, 'attention': now}}
  linear = {'kind': 'linear_attention', 'heads': 2, 'chunk': 64}
  mixers = {'linear_attention': {'heads': 1}, 'mha': {'heads': 8, 'kv_heads': kv_heads}}
  pattern = 'attention,mha,linear_attention,mha+wide'
  kind = now['kind']
  assert of_version_3(attention=linear, mixers=mixers, pattern=pattern) == {
    'attention': linear,
    'mixers': {
      'linear_attention': {'heads': 1},
      kind: {name: value for name, value in now.items() if name != 'kind'},
    },
    'pattern': f'attention,{kind},linear_attention,{kind}+wide',
  }


def test_what_is_no_such_mixer_stays():
  for model in (
    {'attention': 'mha', 'mixers': {}, 'pattern': ''},
    {'architecture': {'kind': 'stack'}, 'linear': 'dense'},
    {'attention': {'kind': 'linear_attention', 'heads': 2}},
  ):
    assert of_version_3(**model) == model
  assert lifted({'version': 3, 'task': 'language'}) == {'task': 'language'}


def test_todays_version_is_taken_as_it_is():
  tree = stored()
  del tree['version']
  assert lifted(stored()) == tree


def test_fields_that_are_younger_than_the_run_have_their_defaults():
  tree = stored()
  for section in ('model', 'data', 'optimizer', 'schedule', 'train', 'eval'):
    # As if the last field of each had come after the run.
    *_, last = tree[section]
    tree[section].pop(last)
  del tree['model']['feed_forward']['recipe']['backward']
  del tree['model']['linear']['factor_init']
  del tree['profile_steps']
  config = parse_stored(tree)
  assert config.model.compute_dtype == 'float32'
  assert config.data.accept_changed is False
  assert config.optimizer.lazy_scale == 0.25
  assert config.schedule.restart_warmup_steps == 5
  assert config.train.compilation_cache == '~/.cache/elas_jax/compiled'
  assert config.eval.sample_tokens == 0
  assert config.model.feed_forward.recipe.backward == 'exact'
  assert config.model.linear.factor_init == 'xavier'


def test_whole_sections_that_are_younger_have_their_defaults():
  tree = stored('low_rank')
  for name in ('norm', 'position'):
    del tree['model'][name]
  del tree['mesh']
  assert parse_stored(tree) == parse(default.get_config('low_rank'))


@pytest.mark.parametrize(
  'section, kind',
  [
    ('model', ''),
    ('model.linear', "model.linear='low_rank'"),
    ('model.feed_forward.recipe', "model.feed_forward.recipe='top2'"),
    ('optimizer', "optimizer='loro'"),
    ('schedule', "schedule='displaced_cosine_restarts'"),
    ('train', ''),
    ('data.source', "data.source='python_source'"),
  ],
)
def test_unknown_fields_are_refused_by_name(section, kind):
  tree = stored()
  node = tree
  for part in section.split('.'):
    node = node[part]
  node['colour'] = 'red'
  with pytest.raises(UserError) as error:
    parse_stored(tree)
  of = f' of {kind}' if kind else ''
  assert str(error.value).startswith(f"{section}.colour='red': no such field{of}; ")


def test_an_unknown_section_is_refused_by_name():
  with pytest.raises(UserError, match=r"^colour=\{'red': 1\}: no such field; accepted"):
    parse_stored(stored() | {'colour': {'red': 1}})


def test_numbers_of_steps_are_stored_as_such():
  config = default.get_config()
  choose(config, 'schedule', 'wsd', decay_steps=0.1)
  tree = to_tree(parse(config))
  assert (tree['schedule']['warmup_steps'], tree['schedule']['decay_steps']) == (150, 300)
  # So a longer run has the phases that the stored one had.
  assert parse_stored(tree | {'train': {'steps': 6_000}}).schedule.decay_steps == 300


@pytest.mark.parametrize('tree', [None, 3, 'x', [], [['version', 1]]])
def test_what_is_no_tree_is_refused(tree):
  with pytest.raises(UserError, match='^runs/a: .*: must be a stored config'):
    lifted(tree, 'runs/a: ')
