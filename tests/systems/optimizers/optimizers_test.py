"""Every optimiser against its formula in float64; states of runs that are; refusals."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from elas_jax.common.errors import UserError
from elas_jax.common.paths import names
from elas_jax.systems.kinds import room
from elas_jax.systems.linears import LINEARS
from elas_jax.systems.optimizers import OPTIMIZERS
from tests.systems.optimizers import descent

KINDS = [(name, kind) for name in OPTIMIZERS for kind in room(OPTIMIZERS[name]).CASES]


@pytest.mark.parametrize('name, kind', KINDS)
def test_every_case_equals_its_truth(name, kind):
  params = descent.draw(0)
  steps = len(descent.RATES)
  gradients = [descent.draw_gradient(1 + step) for step in range(steps)]
  golden = room(kind).truth(kind, params, gradients, descent.RATES)
  with jax.enable_x64(True):
    ours = descent.descend(kind, params, gradients, descent.RATES)
  assert all(x.dtype == np.float64 for x in jax.tree.leaves(ours))
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-11),
    descent.determined(ours),
    descent.determined(golden),
  )


KERNEL = {'map': {'kernel': jnp.ones((4, 6))}}
PAIR = {'map': {'a': jnp.ones((4, 2)), 'b': jnp.ones((2, 6))}}
# The trees that checkpoints hold, by path; two transformations stand behind decay.
STATES = {
  'adamw': ['0/count', '0/mu/map/kernel', '0/nu/map/kernel', '2/count'],
  'sgd': ['1/trace/map/kernel', '2/count'],
  'loro': [
    'count',
    'adam/count',
    *(f'adam/{moment}/map/{factor}' for moment in ('mu', 'nu') for factor in 'ab'),
  ],
  'galore': [
    '0/count',
    '0/projection/map/kernel',
    '0/adam/count',
    '0/adam/mu/map/kernel',
    '0/adam/nu/map/kernel',
    '2/count',
  ],
}


@pytest.mark.parametrize('name', OPTIMIZERS)
def test_states_are_those_of_stored_runs(name):
  params = PAIR if name == 'loro' else KERNEL
  kind = OPTIMIZERS[name]()
  if name == 'galore':
    kind = dataclasses.replace(kind, weight_decay=0.1)
  state = kind.build(descent.training_of(params, [0.1])).init(params)
  assert names(state) == STATES[name]


def test_what_the_linear_maps_add_comes_before_the_rate():
  """Between decay and learning rate, in each optimiser that is a chain."""
  double = optax.GradientTransformation(
    lambda params: optax.EmptyState(),
    lambda updates, state, params: (jax.tree.map(lambda u: 2 * u, updates), state),
  )
  for name in ('adamw', 'sgd', 'galore'):
    training = descent.training_of(KERNEL, [0.1])
    once, twice = (
      OPTIMIZERS[name]().build(dataclasses.replace(training, extra=extra))
      for extra in ((), (double,))
    )
    once, twice = (o.update(KERNEL, o.init(KERNEL), KERNEL)[0] for o in (once, twice))
    assert np.any(once['map']['kernel'])
    np.testing.assert_allclose(twice['map']['kernel'], 2 * once['map']['kernel'], rtol=1e-6)


DENSE, FACTORS = LINEARS['dense'](), LINEARS['low_rank'](rank=4)


def config_of(linear, **fields):
  model = {'linear': linear, 'plain_maps': True, 'map_widths': {'query': 8, 'key': 4}}
  return types.SimpleNamespace(
    task='language', model=types.SimpleNamespace(**model | fields)
  )


def check(name, config=None, **fields):
  config = config or config_of(FACTORS if name == 'loro' else DENSE)
  OPTIMIZERS[name](**fields).check('optimizer', config)


@pytest.mark.parametrize('name, kind', KINDS)
def test_cases_can_run(name, kind):
  kind.check('optimizer', config_of(FACTORS if name == 'loro' else DENSE))


NOT_BELOW_ONE = 1 - 1e-12  # in float32
BELOW_ONE = r': must be at least 0 and, in float32, below 1$'
REFUSED = [
  *((name, 'learning_rate', 0.0, ': must be above 0$') for name in OPTIMIZERS),
  *((name, 'clip_norm', -1.0, ': must be at least 0$') for name in OPTIMIZERS),
  *(
    (name, field, value, said)
    for name in ('adamw', 'loro', 'galore')
    for field, value, said in (
      ('epsilon', 0.0, ': must be above 0$'),
      ('b1', NOT_BELOW_ONE, BELOW_ONE),
      ('b2', -0.1, BELOW_ONE),
    )
  ),
  *(
    (name, 'weight_decay', -0.1, ': must be at least 0$')
    for name in ('adamw', 'sgd', 'galore')
  ),
  ('sgd', 'momentum', 1.0, BELOW_ONE),
  ('loro', 'exact_every', 0, ': must be at least 1$'),
  ('loro', 'lazy_scale', -1.0, ': must be at least 0$'),
  ('galore', 'rank', 0, ': must be at least 1$'),
  ('galore', 'every', 0, ': must be at least 1$'),
  ('galore', 'scale', -1.0, ': must be at least 0$'),
]


@pytest.mark.parametrize('name, field, value, said', REFUSED)
def test_a_field_out_of_range_is_refused(name, field, value, said):
  check(name)
  with pytest.raises(UserError, match=rf'^optimizer\.{field}={value!r}{said}'):
    check(name, **{field: value})


@pytest.mark.parametrize('name', ['adamw', 'sgd', 'galore'])
@pytest.mark.parametrize('factor', [1e38, 1e-38])
def test_decay_that_float32_cannot_hold_is_refused(name, factor):
  decay = {1e38: 10.0, 1e-38: 0.01}[factor]
  check(name, weight_decay=decay)
  with pytest.raises(UserError, match=r"weight_decay \* factor of 'up' in optimizer\.dec"):
    check(name, weight_decay=decay, decay_rules=(('up', factor),))


@pytest.mark.parametrize(
  'name, config, said',
  [
    (
      'galore',
      config_of(FACTORS),
      r"^optimizer='galore': needs a model\.linear with one kernel, as 'dense' has, not "
      r"'low_rank', whose gradients",
    ),
    ('galore', config_of(LINEARS['quadratic']()), r'needs a model\.linear with one kernel'),
    ('galore', config_of(LINEARS['rational']()), r'needs a model\.linear with one kernel'),
    ('loro', config_of(DENSE), r"^optimizer='loro': needs a model\.linear of two fact"),
    (
      'loro',
      config_of(LINEARS['low_rank'](rank=5)),
      r"^model\.linear\.rank=5: must be at most 4 with optimizer='loro', the width of "
      r"the map 'key': factors need full rank$",
    ),
    *(
      (
        name,
        config_of(linear, plain_maps=False),
        rf"^optimizer='{name}': is for the linear maps of a decoder, not for task=",
      )
      for name, linear in (('galore', DENSE), ('loro', FACTORS))
    ),
  ],
)
def test_models_that_it_is_not_for_are_refused(name, config, said):
  with pytest.raises(UserError, match=said):
    check(name, config)


def test_loro_has_no_weight_decay():
  fields = {field.name for field in dataclasses.fields(OPTIMIZERS['loro'])}
  assert 'weight_decay' not in fields
  assert {'learning_rate', 'clip_norm'} < fields
