"""Sections of several kinds, by name in any order: objectives and measures."""

import pytest

from configs import default
from elas_jax.common.limits import quoted
from elas_jax.config import schema
from elas_jax.config.overrides import set_field
from elas_jax.config.parsing import parse
from elas_jax.systems.objectives import OBJECTIVES
from tests.config.overrides_test import refused, tree

CONSTANT = {'kind': 'constant', 'warmup_steps': 0, 'warmup_fraction': 0.0}


def test_some_of_several_kinds_by_name_in_any_order():
  found = tree(
    'train.objectives.z_loss.schedule.warmup_steps=0.1',  # before what it belongs to
    'train.objectives=l1_activations,z_loss',
    'train.objectives.l1_activations.coefficient=2',
  )['train']['objectives']
  assert found == {
    'z_loss': {'coefficient': 1e-4, 'schedule': CONSTANT | {'warmup_steps': 300}},
    'l1_activations': {'coefficient': 2, 'schedule': CONSTANT},
  }
  assert list(found) == ['z_loss', 'l1_activations']  # as the room has them
  kinds = 'train.objectives.z_loss.schedule=wsd', 'train.objectives=z_loss'
  assert tree(*kinds)['train']['objectives']['z_loss']['schedule']['kind'] == 'wsd'


def test_a_list_of_names_is_set_and_emptied():
  assert tree()['eval']['measures'] == {'activations': {}}
  assert tree('eval.measures=spectrum')['eval']['measures'] == {'spectrum': {}}
  assert tree('eval.measures=')['eval']['measures'] == {}
  config = default.get_config()
  set_field(config, 'eval.measures', ('spectrum', 'activations'))
  set_field(config, 'train.objectives', {'z_loss': {'coefficient': 0.5}})
  parsed = parse(config)
  assert [type(x).__name__ for x in parsed.eval.measures] == ['Activations', 'Spectrum']
  assert schema.tree(parsed)['train']['objectives'] == {
    'z_loss': {'coefficient': 0.5, 'schedule': CONSTANT}
  }


ONE_OF = f'must be one of {quoted(sorted(OBJECTIVES))}'


@pytest.mark.parametrize(
  'flags, said',
  [
    (['zloss'], f"train.objectives='zloss': did you mean 'z_loss'? {ONE_OF}"),
    (['z_loss,z_loss'], "train.objectives='z_loss,z_loss': 'z_loss' is there twice"),
    (['z_loss', '.l1_activations.coefficient=2'], 'train.objectives.l1_activations.coeff'),
    (['z_loss', '.zloss.coefficient=2'], "train.objectives='zloss': did you mean 'z_loss"),
    (['z_loss', '.z_loss.rate=2'], 'train.objectives.z_loss.rate=2: no such field; '),
    (['z_loss', '.z_loss.coefficient=x'], "train.objectives.z_loss.coefficient='x': must"),
    (['z_loss', '.z_loss=2'], 'train.objectives.z_loss=2: is a section; accepted: '),
    (['z_loss', '.z_loss.coefficient=-1'], 'train.objectives.z_loss.coefficient=-1.0: mus'),
  ],
)
def test_what_is_none_of_several_kinds_is_refused(flags, said):
  joined = [f'={flags[0]}', *flags[1:]]
  assert refused(*(f'train.objectives{flag}' for flag in joined)).startswith(said)


def test_a_field_of_a_kind_that_is_not_named_says_how_to_name_it():
  assert refused('train.objectives.z_loss.coefficient=0.1') == (
    "train.objectives.z_loss.coefficient=0.1: train.objectives is empty; name 'z_loss' "
    'there as well, as by --config.train.objectives=z_loss'
  )
  assert refused('train.z_loss=0.1').startswith(
    'train.z_loss=0.1: no such field; did you mean train.objectives.z_loss.coefficient? '
  )
