"""Placement of every array, and one device against four."""

import dataclasses
import functools

import jax
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from configs import c4, methods
from elas_jax.common.errors import UserError
from elas_jax.common.paths import path_name
from elas_jax.config.parsing import parse
from elas_jax.run.evaluation import put_batch
from elas_jax.run.sharding import make_mesh, state_shardings
from elas_jax.run.state import abstract_state, abstract_variables, create_state
from elas_jax.run.step import jit_train_step
from tests.conftest import thinned


def with_mesh(config, **sizes):
  return dataclasses.replace(config, mesh=dataclasses.replace(config.mesh, **sizes))


def batch_of(config, seed):
  random = np.random.default_rng(seed)
  rows, L = config.data.batch_size, config.data.sequence_length
  return {
    'tokens': random.integers(0, 257, (rows, L + 1)).astype(np.int32),
    'valid': random.integers(L // 2, L + 1, rows).astype(np.int32),
    'bytes': np.full(rows, L, np.int32),
  }


def losses(config, devices, steps=4):
  mesh = make_mesh(config, devices)
  with jax.set_mesh(mesh):
    state = create_state(config, mesh)
    step = jit_train_step(config, mesh)
    values = []
    for number in range(steps):
      state, metrics = step(state, put_batch(batch_of(config, number), mesh))
      values.append(
        [float(metrics['loss'] / metrics['count']), float(metrics['grad_norm'])]
      )
  return np.array(values), state


@functools.cache
def losses_on_one_device(config):
  return losses(config, jax.devices()[:1])[0]


# Rows are made by batch_of: the folder of the test must not tell configs apart.
NO_DATA = {'data.source.path': 'none', 'data.cache_dir': 'none'}
FULL = {'model.linear': 'dense', 'model.feed_forward': 'glu', 'train.accumulation': 2}
KAN = {'model.linear': 'kan_chebyshev', 'model.feed_forward': 'kat'}


@pytest.mark.parametrize(
  ('sizes', 'overrides'),
  thinned(
    [
      ({'data': 4}, {}),
      ({'data': 1, 'fsdp': 4}, {}),
      ({'data': 2, 'tensor': 2}, {}),
      ({'data': 1, 'fsdp': 2, 'tensor': 2}, {}),
      ({'data': 1, 'fsdp': 4}, FULL),
      ({'data': 1, 'fsdp': 2, 'tensor': 2}, FULL),
      ({'data': 1, 'fsdp': 2, 'tensor': 2}, KAN),
      ({'data': 1, 'fsdp': 2, 'tensor': 2}, {'model.linear': 'quadratic'}),
    ],
    ({'data': 1, 'fsdp': 2, 'tensor': 2}, FULL),
  ),
)
def test_four_devices_equal_one(make_config, sizes, overrides):
  config = make_config(**overrides | NO_DATA)
  four, state = losses(with_mesh(config, **sizes), jax.devices())
  np.testing.assert_allclose(four, losses_on_one_device(config), rtol=2e-5)
  # After the step the state is still split as it was placed.
  if sizes.get('fsdp', 1) > 1:
    assert not state.params['embedding'].is_fully_replicated
    moments = optax.tree.get(state.opt_state, 'mu')['layers']['feed_forward']['up']
    assert not all(leaf.is_fully_replicated for leaf in jax.tree.leaves(moments))


@pytest.mark.conformance
@pytest.mark.parametrize(
  'rule, backward', [('top2', 'exact'), ('mvue', 'straight_through')]
)
def test_elas_on_four_devices_equals_one(make_config, rule, backward):
  """Neither tiles of tokens nor random numbers may depend on where the tokens live."""
  config = make_config(
    **{
      'model.feed_forward': 'relu2_two_four',
      'model.feed_forward.recipe': rule,
      'model.feed_forward.recipe.backward': backward,
      'optimizer': 'loro',
      'optimizer.exact_every': 2,
    }
  )
  one, _ = losses(config, jax.devices()[:1])
  four, _ = losses(with_mesh(config, data=1, fsdp=2, tensor=2), jax.devices())
  np.testing.assert_allclose(four[:, 0], one[:, 0], rtol=2e-5)
  # Two sums in another order may prune another one of two near-equal entries.
  np.testing.assert_allclose(four[:, 1], one[:, 1], rtol=1e-3)


@pytest.mark.conformance
def test_rules_place_every_array_of_every_method():
  for method in methods.METHODS:
    config = parse(c4.get_config(f'60m,{method}'))
    config = with_mesh(config, data=1, fsdp=2, tensor=2)
    state = abstract_state(config, make_mesh(config))
    split = lambda x: any(axis is not None for axis in x.sharding.spec)
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
      name = path_name(path)
      whole = name.endswith(('scale', 'values', 'support', 'columns'))
      assert split(leaf) == (leaf.ndim >= 2 and not whole), (method, name)


def test_specs(make_config):
  config = with_mesh(make_config(), data=1, fsdp=2, tensor=2)
  shapes = abstract_variables(config)['params']
  shardings = state_shardings(config, make_mesh(config), shapes)
  feed_forward = shardings['layers']['feed_forward']
  assert feed_forward['up']['a'].spec == P(None, 'fsdp', None)
  assert feed_forward['up']['b'].spec == P(None, 'fsdp', 'tensor')
  assert feed_forward['down']['a'].spec == P(None, 'tensor', 'fsdp')
  assert feed_forward['down']['b'].spec == P(None, None, 'fsdp')
  # 257 ids divide by nothing, so that dimension of the embedding stays whole.
  assert shardings['embedding'].spec == P(None, 'fsdp')


def test_a_parameter_without_a_rule_is_named(make_config):
  config = make_config()
  with pytest.raises(UserError, match='^layers/new/weight: no kind says .* its AXES$'):
    tree = {'layers': {'new': {'weight': jax.ShapeDtypeStruct((2, 3), 'float32')}}}
    state_shardings(config, make_mesh(config), tree)
