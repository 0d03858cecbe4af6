"""LoRA trains its factors alone; what its kind says of the optimiser."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from elas_jax.common.errors import UserError
from elas_jax.systems.linears.lora import LoRA
from tests.systems.linears.layers import (
  I,
  O,
  R,
  config_of,
  layer_of,
  normal,
  randomised,
  start,
  wide,
)

GOAL = normal(2, 5, O, seed=2)


def test_it_starts_as_its_dense_map():
  x = normal(2, 5, I)
  layer = layer_of(LoRA(R, 8.0), init_std=0.02)
  variables = start(layer, x)
  kernel = wide(variables['params']['kernel'])
  expected = np.float64(x) @ kernel
  np.testing.assert_allclose(layer.apply(variables, x), expected, rtol=1e-4, atol=1e-5)
  assert abs(kernel.std() / 0.02 - 1) < 0.1
  a = np.abs(variables['params']['a'])
  assert 0.9 * I**-0.5 < a.max() <= I**-0.5


def test_it_trains_its_factors_only():
  x = normal(2, 5, I)
  layer = layer_of(LoRA(R, 8.0))
  variables = randomised(start(layer, x))
  loss = lambda params: (layer.apply({'params': params}, x) * GOAL).sum()
  found, p = jax.jit(jax.grad(loss))(variables['params']), wide(variables['params'])
  assert not found['kernel'].any()
  rows, goal = np.float64(x).reshape(-1, I), np.float64(GOAL).reshape(-1, O)
  expected = {'a': 2 * rows.T @ goal @ p['b'].T, 'b': 2 * (rows @ p['a']).T @ goal}
  for name, value in expected.items():
    np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize('every, merges', [(0, []), (2, [2, 4])])
def test_steps_leave_the_kernel_alone_or_merge(every, merges):
  kind = LoRA(2, 3.0, every)
  optimizer = kind.around_steps(optax.adamw(0.01, weight_decay=0.1), seed=0)
  params = {'map': {name: jnp.asarray(normal(*s)) for name, s in SHAPES.items()}}
  state, found = optimizer.init(params), []
  for step in range(1, 5):
    gradients = jax.tree.map(lambda p, s=step: normal(*p.shape, seed=s), params)
    gradients['map']['kernel'] = jnp.zeros((6, 5))  # as the module has it
    updates, state = jax.jit(optimizer.update)(gradients, state, params)
    new = optax.apply_updates(params, updates)
    if np.any(updates['map']['kernel']):
      found.append(step)
      assert not np.any(new['map']['b'])
    params = new
  assert found == merges


SHAPES = {'kernel': (6, 5), 'a': (6, 2), 'b': (2, 5)}


def test_a_merge_keeps_the_map():
  """Y stays, with the scale alpha / R: the factors do not move here."""
  params = {name: jnp.asarray(normal(*s, seed=1)) for name, s in SHAPES.items()}
  optimizer = LoRA(2, 3.0, 1).around_steps(optax.scale(0.0), seed=0)
  updates, _ = optimizer.update(params, optimizer.init(params), params)
  new = wide(optax.apply_updates(params, updates))
  p = wide(params)
  expected = p['kernel'] + 1.5 * p['a'] @ p['b']
  np.testing.assert_allclose(new['kernel'], expected, rtol=1e-5, atol=1e-6)
  assert 0 < np.abs(new['a']).max() <= 6**-0.5


def test_frozen_is_what_has_no_gradient():
  assert LoRA().frozen() == ('kernel',)


def test_merges_are_counted_from_zero():
  with pytest.raises(UserError, match='model.linear.merge_every=-1: must be at least 0'):
    LoRA(R, merge_every=-1).check('model.linear', config_of())
