"""Stored configs of version 0 that lack fields, or have others: filled, or refused."""

import copy

import pytest

from elas_jax.common.errors import UserError
from elas_jax.config.migrate import lifted
from elas_jax.config.parsing import parse_stored
from tests.config.old_trees import LANGUAGE, ROWS, changed


def test_fields_that_came_late_have_what_runs_of_before_did():
  old = copy.deepcopy(LANGUAGE)
  for name in ('factor_init', 'two_four_rule', 'two_four_backward', 'two_four_refresh'):
    del old['model'][name]
  for name in ('alpha', 'gamma', 'two_four_dense_steps', 'two_four_implementation', 'kan'):
    del old['model'][name]
  for name in ('accept_changed', 'max_bad_share'):
    del old['data'][name]
  for name in ('merge_every', 'relinear', 'relinear_g', 'relinear_b'):
    del old['optimizer'][name]
  for name in ('task', 'restore', 'profile_steps'):
    del old[name]
  found = lifted(changed(old, {'model.feed_forward': 'relu2_two_four'}))
  assert found['model']['linear']['factor_init'] == 'xavier'
  assert found['model']['feed_forward'] == {
    'kind': 'relu2_two_four',
    'recipe': {'kind': 'top2', 'backward': 'exact'},
    'dense_steps': 0,
    'implementation': 'auto',
  }
  soft = {'two_four_rule': 'soft_activations', 'feed_forward': 'relu2_two_four'}
  soft = lifted(changed(old, {f'model.{name}': value for name, value in soft.items()}))
  assert soft['model']['feed_forward']['recipe']['refresh'] == 10
  assert found['data']['max_bad_share'] == 0.01
  assert found['data']['accept_changed'] is False
  assert (found['task'], found['restore']) == ('language', '')
  lora = lifted(changed(old, {'model.linear': 'lora'}))['model']['linear']
  assert lora == {'kind': 'lora', 'rank': 48, 'alpha': 32.0, 'merge_every': 0}


@pytest.mark.parametrize(
  'fields, said',
  [
    ({'model.rnak': 4}, 'model.rnak=4: no such field of stored configs of version 0; acc'),
    ({'data.augment': 'none'}, "data.augment='none': no such field of stored configs of v"),
    ({'optimizer.b3': 0.1}, 'optimizer.b3=0.1: no such field of stored configs of version'),
    ({'eval.units': 3}, 'eval.units=3: no such field of stored configs of version 0; acce'),
    ({'train.speed': 3}, 'train.speed=3: no such field; '),
    ({'schedule': 3}, 'schedule=3: no such field of stored configs of version 0; accepted'),
    (
      {'model.linear': 'kan_fast', 'model.kan.width': 3},
      'model.kan.width=3: no such field of stored configs of version 0; accepted: act',
    ),
    ({'model': 3}, 'model=3: must be a section of fields'),
    ({'model.linear': 'loar'}, "model.linear='loar': did you mean 'lora'? must be one of"),
    ({'model.linear': ['lora']}, "model.linear=['lora']: must be of type str"),
    ({'model.feed_forward': 'gelu'}, "model.feed_forward='gelu': did you mean 'glu'? mus"),
    ({'optimizer.name': 'adam'}, "optimizer='adam': did you mean 'adamw'? must be one of"),
    ({'optimizer.schedule': 'wsdd'}, "schedule='wsdd': did you mean 'wsd'? must be one o"),
    ({'optimizer.decay_rules': 3}, 'optimizer.decay_rules=3: must be pairs (regex, numbe'),
    ({'model.rank': 'x'}, "model.linear.rank='x': must be of type int"),
    ({'task': 'translation'}, "task='translation': must be one of 'language', "),
  ],
)
def test_what_never_was_is_refused_by_name(fields, said):
  with pytest.raises(UserError) as error:
    parse_stored(changed(LANGUAGE, fields))
  assert str(error.value).startswith(said)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('path', ['model.width', 'optimizer.b1', 'eval.tokens', 'mesh'])
def test_what_is_missing_is_named(path):
  *sections, name = path.split('.')
  old = copy.deepcopy(LANGUAGE)
  del (old[sections[0]] if sections else old)[name]
  said = f'^{path}: missing from a stored config of version 0'
  with pytest.raises(UserError, match=said):
    parse_stored(old)


def test_what_never_was_in_a_network_is_refused_by_name():
  with pytest.raises(UserError, match='^model.rank=4: no such field of stored configs'):
    lifted(changed(ROWS, {'model.rank': 4}))
  with pytest.raises(UserError, match="^model.norm='rms': must be one of 'none', 'layer'"):
    lifted(changed(ROWS, {'model.norm': 'rms'}))
