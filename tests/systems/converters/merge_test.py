"""Factors merged into dense maps: against NumPy in float64, and the same logits."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elas_jax.common.errors import UserError
from elas_jax.config.checks import check
from elas_jax.run.conversion import check_variables
from elas_jax.run.state import abstract_variables
from elas_jax.systems.converters.merge import Merge
from elas_jax.systems.feed_forwards import FEED_FORWARDS
from elas_jax.systems.linears import LINEARS
from elas_jax.systems.optimizers import OPTIMIZERS
from elas_jax.systems.two_four import RECIPES
from tests.conformance.hosts import batch, given, language, network
from tests.conftest import thinned

LINEAR = {
  'low_rank': LINEARS['low_rank'](rank=3),
  'lora': LINEARS['lora'](rank=4, alpha=6.0),
  'relora': LINEARS['lora'](rank=4, alpha=6.0, merge_every=5),
  'sltrain': LINEARS['sltrain'](rank=4, alpha=8.0, sparse_share=0.2),
}


def numpy_kernel(p):
  """W of one map in float64, by the formulas of the papers, with the numbers above."""
  p = {name: np.asarray(x, np.float64) for name, x in p.items()}
  if 'kernel' in p:
    return p['kernel'] + 6.0 / 4 * p['a'] @ p['b']
  if 'values' not in p:
    return p['a'] @ p['b']
  w_IxO = 8.0 / 4 * p['a'] @ p['b']
  for place, value in zip(p['support'].astype(int), p['values'], strict=True):
    w_IxO[divmod(place, w_IxO.shape[1])] += value
  return w_IxO


def drawn(config):
  """Variables as after some training: no factor is zero, and places of SLTrain differ."""
  random = np.random.default_rng(0)

  def draw(path, like):
    name = path[-1].key
    if name == 'support':
      *layers, count = like.shape
      places = [random.permutation(5 * count)[:count] for _ in range(math.prod(layers))]
      return jnp.asarray(np.reshape(places, like.shape), like.dtype)
    if like.dtype == jnp.int32:
      return jnp.zeros(like.shape, like.dtype)
    values = 0.25 * random.normal(size=like.shape) + (name == 'scale')
    return jnp.asarray(values, like.dtype)

  return jax.tree_util.tree_map_with_path(draw, abstract_variables(config))


def merged(config):
  """(given, its lines, the new config, the new variables)"""
  said = []
  told = given(config, drawn(config), said)
  Merge().check('converter', config)
  new_config, new = Merge().convert(told)
  check(new_config)
  check_variables(new_config, new, 'merge')
  return told, said, new_config, new


def assert_same_outputs(told, new_config, new):
  rows = batch(new_config)
  before, _ = told.outputs(told.config, told.variables, rows)
  after, _ = told.outputs(new_config, new, rows)
  assert np.ptp(before) > 0.5
  np.testing.assert_allclose(after, before, rtol=1e-5, atol=2e-6 * np.abs(before).max())


def at(tree, path):
  for name in path.split('/'):
    tree = tree.get(name, {})
  return tree


@pytest.mark.parametrize(
  ('model', 'name'),
  thinned(
    [*((language, name) for name in LINEAR), (network, 'lora'), (network, 'sltrain')],
    (language, 'low_rank'),
    (network, 'lora'),
    (network, 'sltrain'),
  ),
)
def test_dense_maps_have_the_kernels_of_the_formula(model, name):
  config = model(linear=LINEAR[name])
  told, said, new_config, new = merged(config)
  assert not said and new_config.model.linear == LINEARS['dense']()
  assert new_config == dataclasses.replace(config, model=new_config.model)
  assert jax.tree.leaves(new['buffers']) == []
  maps = [path for path in told.linear_maps if at(new['params'], path)]
  assert len(maps) == (6 if model is language else 2)
  for path in maps:
    parts = (at(told.variables[part], path) for part in ('params', 'buffers'))
    p = {name: x for part in parts for name, x in part.items()}
    kernel = at(new['params'], path)['kernel']
    if model is language:  # the layers are stacked
      layers = [{name: x[n] for name, x in p.items()} for n in range(len(kernel))]
      expected = np.stack([numpy_kernel(layer) for layer in layers])
    else:
      bias = at(new['params'], path)['bias']
      np.testing.assert_array_equal(bias, p.pop('bias'))
      expected = numpy_kernel(p)
    np.testing.assert_allclose(kernel, expected, rtol=1e-5, atol=1e-6)
  assert_same_outputs(told, new_config, new)


@pytest.mark.parametrize('recipe', ['top2', 'soft_weights'])
def test_pruned_feed_forwards_stay(recipe):
  pruned = FEED_FORWARDS['relu2_two_four'](RECIPES[recipe](), dense_steps=0)
  config = language(linear=LINEAR['low_rank'], feed_forward=pruned)
  told, _, new_config, new = merged(config)
  assert new_config.model.feed_forward == pruned
  assert bool(jax.tree.leaves(new['buffers'])) == (recipe == 'soft_weights')
  assert_same_outputs(told, new_config, new)


def test_bfloat16_is_rounded_once():
  """Computed in float32: an entry is one of the two bfloat16 numbers around it."""
  model = language(linear=LINEAR['lora']).model
  model = dataclasses.replace(model, param_dtype='bfloat16')
  told, said, _, new = merged(dataclasses.replace(language(), model=model))
  path = 'layers/feed_forward/up'
  kernel = at(new['params'], path)['kernel']
  assert kernel.dtype == jnp.bfloat16
  p = at(told.variables['params'], path)
  exact = np.stack([numpy_kernel({k: x[n] for k, x in p.items()}) for n in range(2)])
  change = np.abs(np.float64(kernel) - exact)
  assert (change <= 2.0**-8 * np.abs(exact) * 1.001).all() and change.max() > 0
  (line,) = said
  assert line.startswith('rounded to bfloat16: entries of W by at most 0.0')


def test_an_optimiser_of_factors_is_followed_by_adamw():
  """With its learning rate and Adam's numbers; LORO has no weight decay."""
  loro = OPTIMIZERS['loro'](
    learning_rate=0.02, b1=0.8, b2=0.95, epsilon=1e-5, clip_norm=0.5
  )
  config = language(linear=LINEAR['low_rank'], optimizer=loro)
  check(config)
  _, said, new_config, _ = merged(config)
  assert new_config.optimizer == OPTIMIZERS['adamw'](
    learning_rate=0.02, b1=0.8, b2=0.95, epsilon=1e-5, clip_norm=0.5, weight_decay=0.0
  )
  assert said == ["optimizer='loro' steps on factors: 'adamw' takes its place"]


@pytest.mark.parametrize('name', ['dense', 'cola', 'lost', 'quadratic', 'kan_bspline'])
def test_what_is_no_product_of_factors_is_refused(name):
  config = language(linear=LINEARS[name]())
  accepted = "'low_rank', 'lora', 'sltrain'"
  with pytest.raises(UserError, match=f"^model.linear='{name}': must be one of {accepted}"):
    Merge().check('converter', config)
