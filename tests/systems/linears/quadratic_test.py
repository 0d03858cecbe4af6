"""Quadratic maps: parameters, starts, deep stacks, what they refuse."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from elas_jax.common.errors import UserError
from elas_jax.ops.quadratic import FORMS
from elas_jax.systems.linears.quadratic import Quadratic
from tests.systems.linears.layers import config_of, normal, parts_of, shapes_of, start

I, O = 12, 10
PUBLISHED = Quadratic()


def dense(kind=PUBLISHED, features=O, name=None, **fields):
  parts = parts_of(kind, **{'use_bias': True} | fields)
  return kind.make(features, parts, name)


def convolution(kind=PUBLISHED, features=O, stride=1, **fields):
  parts = parts_of(kind, **{'use_bias': True} | fields)
  return kind.convolve(features, (3, 3), stride, parts, name=None)


def count(params):
  return sum(p.size for p in jax.tree.leaves(params))


CASES = {
  'dense': (dense, nn.Dense(O), (4, I)),
  'conv': (convolution, nn.Conv(O, (3, 3)), (2, 6, 5, I)),
  'conv, stride': (
    functools.partial(convolution, stride=2),
    nn.Conv(O, (3, 3), 2, padding=1),
    (2, 6, 5, I),
  ),
}
cases = pytest.mark.parametrize('case', CASES)


@cases
@pytest.mark.parametrize('form, times', [('full', 3), ('compact', 2), ('hadamard', 2)])
def test_parameters_of_a_plain_layer_times(case, form, times):
  layer, plain, shape = CASES[case]
  shapes = lambda layer: shapes_of(layer, normal(*shape))
  plain_count = count(shapes(plain))
  assert count(shapes(layer(Quadratic(form)))) == times * plain_count
  square = layer(Quadratic('square', 'random'))
  assert count(shapes(square)) == plain_count


@pytest.mark.parametrize(
  'case, form, use_bias',
  [
    ('dense', 'full', True),
    ('dense', 'full', False),
    ('dense', 'compact', True),
    ('dense', 'hadamard', False),
    ('conv', 'full', True),
    ('conv, stride', 'full', False),
  ],
)
def test_it_starts_as_the_plain_layer_bit_for_bit(case, form, use_bias):
  layer, plain, shape = CASES[case]
  x, layer = normal(*shape), layer(Quadratic(form), use_bias=use_bias)
  params, plain = start(layer, x)['params'], plain.copy(use_bias=use_bias)
  weights = {'kernel': params['kernel_r']}
  if use_bias:
    params['bias_r'] = weights['bias'] = normal(O, seed=1)
  for wrap in (lambda f: f, jax.jit) if use_bias and case == 'dense' else (jax.jit,):
    expected = wrap(plain.apply)({'params': weights}, x)
    np.testing.assert_array_equal(wrap(layer.apply)({'params': params}, x), expected)


def test_it_draws_the_plain_layers_kernel():
  x = normal(4, I)
  plain = nn.Dense(O, kernel_init=nn.initializers.normal(0.02))
  ours = start(dense(init_std=0.02), x)['params']
  np.testing.assert_array_equal(ours['kernel_r'], start(plain, x)['params']['kernel'])
  kaiming = start(convolution(features=64), normal(1, 4, 4, I))['params']['kernel_r']
  np.testing.assert_allclose(np.std(kaiming), np.sqrt(2 / (9 * I)), rtol=0.03)


def test_without_biases_that_of_g_stays():
  for form in FORMS:
    layer = dense(Quadratic(form, 'random'), use_bias=False)
    params = shapes_of(layer, normal(4, I))['params']
    biases = [name for name in params if name.startswith('bias')]
    assert biases == (['bias_g'] if 'g' in FORMS[form] else [])
  for way in ('relinear', 'random'):
    params = start(dense(Quadratic(start=way), use_bias=False), normal(4, I))['params']
    np.testing.assert_array_equal(params['bias_g'], float(way == 'relinear'))


def test_random_start_draws_every_kernel():
  layer = dense(Quadratic(start='random'), 100, init_std=0.1)
  params = start(layer, normal(2, 100))['params']
  for branch in 'rgb':
    np.testing.assert_allclose(np.std(params[f'kernel_{branch}']), 0.1, rtol=0.02)
    np.testing.assert_array_equal(params[f'bias_{branch}'], 0)
  assert np.std(params['kernel_g'] - params['kernel_b']) > 0.1


def test_in_a_decoder_it_is_a_module_inside():
  """The same map, whose parameters lie one deeper."""
  x = normal(4, I)
  inner, outer = dense(), dense(nested=True)
  params = start(inner, x)['params']
  below = {'params': {Quadratic.nested: params}}
  assert shapes_of(outer, x) == jax.eval_shape(lambda: below)
  np.testing.assert_array_equal(outer.apply(below, x), inner.apply({'params': params}, x))


class Block(nn.Module):
  start: str
  normalised: bool

  @nn.compact
  def __call__(self, x, _):
    x = dense(Quadratic(start=self.start), x.shape[-1], 'map')(x)
    # Normalisation before the activation, as in the published nets.
    return nn.relu(nn.LayerNorm()(x)) if self.normalised else x, None


def deep(*fields):
  """The function (x, loss's wrapper) -> what a wrapped loss of 30 such layers gives."""
  axes = {'variable_axes': {'params': 0}, 'split_rngs': {'params': True}}
  layers = nn.scan(Block, length=30, **axes)(*fields)

  def run(x, wrap=lambda loss: loss):
    loss = lambda params: (layers.apply(params, x, None)[0] ** 2).sum()
    return wrap(loss)(layers.init(jax.random.key(0), x, None))

  return jax.jit(run, static_argnums=1)


def test_a_deep_stack_is_finite():
  value, gradients = deep('random', True)(10 * normal(8, I), jax.value_and_grad)
  assert np.isfinite(value) and value > 0
  assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradients))


def test_without_normalisation_it_explodes_unless_it_starts_linear():
  x = normal(8, I)
  assert np.isfinite(deep('relinear', False)(x))
  assert not np.isfinite(deep('random', False)(x))


def test_dtypes():
  x = jnp.asarray(normal(4, I), jnp.bfloat16)
  layer = dense(param_dtype='bfloat16')
  y, variables = jax.eval_shape(layer.init_with_output, jax.random.key(0), x)
  assert {p.dtype for p in jax.tree.leaves((y, variables))} == {jnp.dtype(jnp.bfloat16)}


def test_training_shrinks_as_asked():
  params = {'kernel_r': 2.0, 'kernel_g': 3.0, 'bias_g': 5.0, 'kernel_b': 7.0}
  params = jax.tree.map(jnp.asarray, params)
  ones, zeros = (jax.tree.map(f, params) for f in (jnp.ones_like, jnp.zeros_like))
  how = lambda relinear: Quadratic(relinear=relinear, relinear_g=0.25, relinear_b=0.5)
  inner = optax.scale(-1.0)
  shrunk = {'kernel_r': 1.0, 'kernel_g': 0.25, 'bias_g': 0.25, 'kernel_b': 0.5}
  for relinear, factors in (('none', dict.fromkeys(params, 1.0)), ('gradients', shrunk)):
    assert how(relinear).extra() == []
    optimizer = how(relinear).around_clipping(inner)
    updates, _ = optimizer.update(ones, optimizer.init(params), params)
    assert jax.tree.map(lambda u: float(-u), updates) == factors, relinear
  assert how('weights').around_clipping(inner) is inner
  (shrink,) = how('weights').extra()
  directions, _ = shrink.update(zeros, shrink.init(params), params)
  # b_g to 1, the others of g and b to 0.
  expected = {'kernel_r': 0.0, 'kernel_g': 0.75, 'bias_g': 1.0, 'kernel_b': 3.5}
  assert jax.tree.map(float, directions) == expected


ROWS = {'task': 'classification', 'learning_rate': 0.003}
SQUARE = {'form': 'square', 'start': 'random'}


@pytest.mark.parametrize(
  'fields, config, message',
  [
    (
      {'form': 'square'},
      ROWS,
      r"^model.linear.start='relinear': must be 'random' with model.linear.form='square'",
    ),
    (
      SQUARE,
      {'task': 'language'},
      r"^model.linear.form='square': has no linear branch; accepted with task='language' "
      "are the others, 'full', 'compact', 'hadamard'$",
    ),
    ({'relinear_g': 2.0}, ROWS, r'model.linear.relinear_g=2.0: must be between 0 and 1'),
    (
      {'relinear': 'gradients', 'relinear_b': -1.0},
      ROWS,
      r'model.linear.relinear_b=-1.0: must be between 0 and 1',
    ),
    (
      {'relinear': 'weights', 'relinear_g': 400.0},
      ROWS,
      r'model.linear.relinear_g=400.0: must be between 0 and 333.333, 1 / optimizer.l',
    ),
    (
      {'relinear': 'weights', 'relinear_b': -1.0},
      ROWS,
      r'model.linear.relinear_b=-1.0: must be between 0 and 333.333',
    ),
  ],
)
def test_what_cannot_be_is_refused_by_name(fields, config, message):
  with pytest.raises(UserError, match=message):
    Quadratic(**fields).check('model.linear', config_of(**config))


@pytest.mark.parametrize(
  'fields, config',
  [
    (SQUARE, ROWS),
    ({'relinear': 'weights', 'relinear_g': 333.0}, ROWS),
    # Refused where the rate is.
    ({'relinear': 'weights'}, {'learning_rate': 0.0}),
  ],
)
def test_what_can_be_is_not_refused(fields, config):
  Quadratic(**fields).check('model.linear', config_of(**config))
