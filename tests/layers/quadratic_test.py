"""Quadratic layers: parameters, starts, deep stacks, what they refuse."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elas_jax.common.errors import UserError
from elas_jax.layers.quadratic import QuadraticConv, QuadraticDense
from elas_jax.ops.quadratic import FORMS

I, O = 12, 10


def normal(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def start(layer, x):
  return jax.jit(layer.init)(jax.random.key(3), x)['params']


def count(params):
  return sum(p.size for p in jax.tree.leaves(params))


CASES = {
  'dense': (QuadraticDense, nn.Dense(O), {}, (4, I)),
  'conv': (QuadraticConv, nn.Conv(O, (3, 3)), {}, (2, 6, 5, I)),
  'conv, stride': (
    QuadraticConv,
    nn.Conv(O, (3, 2), (2, 1), padding=((1, 0), (0, 2))),
    {'kernel_size': (3, 2), 'stride': (2, 1), 'padding': ((1, 0), (0, 2))},
    (2, 6, 5, I),
  ),
}
cases = pytest.mark.parametrize('case', CASES)


@cases
@pytest.mark.parametrize('form, times', [('full', 3), ('compact', 2), ('hadamard', 2)])
def test_parameters_of_a_plain_layer_times(case, form, times):
  layer, plain, fields, shape = CASES[case]
  shapes = lambda layer: jax.eval_shape(layer.init, jax.random.key(0), normal(*shape))
  plain_count = count(shapes(plain))
  assert count(shapes(layer(O, form=form, **fields))) == times * plain_count
  square = layer(O, form='square', start='random', **fields)
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
  layer, plain, fields, shape = CASES[case]
  x, layer = normal(*shape), layer(O, form=form, use_bias=use_bias, **fields)
  params, plain = start(layer, x), plain.copy(use_bias=use_bias)
  weights = {'kernel': params['kernel_r']}
  if use_bias:
    params['bias_r'] = weights['bias'] = normal(O, seed=1)
  for wrap in (lambda f: f, jax.jit) if use_bias and case == 'dense' else (jax.jit,):
    expected = wrap(plain.apply)({'params': weights}, x)
    np.testing.assert_array_equal(wrap(layer.apply)({'params': params}, x), expected)


def test_it_draws_the_plain_layers_kernel():
  x = normal(4, I)
  plain = nn.Dense(O, kernel_init=nn.initializers.normal(0.02))
  ours = start(QuadraticDense(O, init_std=0.02), x)
  np.testing.assert_array_equal(ours['kernel_r'], start(plain, x)['kernel'])
  kaiming = start(QuadraticConv(64), normal(1, 4, 4, I))['kernel_r']
  np.testing.assert_allclose(np.std(kaiming), np.sqrt(2 / (9 * I)), rtol=0.03)


def test_without_biases_that_of_g_stays():
  for form in FORMS:
    layer = QuadraticDense(O, form, 'random', use_bias=False)
    params = jax.eval_shape(layer.init, jax.random.key(0), normal(4, I))['params']
    biases = [name for name in params if name.startswith('bias')]
    assert biases == (['bias_g'] if 'g' in FORMS[form] else [])
  for way in ('relinear', 'random'):
    params = start(QuadraticDense(O, start=way, use_bias=False), normal(4, I))
    np.testing.assert_array_equal(params['bias_g'], float(way == 'relinear'))


def test_random_start_draws_every_kernel():
  params = start(QuadraticDense(100, start='random', init_std=0.1), normal(2, 100))
  for branch in 'rgb':
    np.testing.assert_allclose(np.std(params[f'kernel_{branch}']), 0.1, rtol=0.02)
    np.testing.assert_array_equal(params[f'bias_{branch}'], 0)
  assert np.std(params['kernel_g'] - params['kernel_b']) > 0.1


class Block(nn.Module):
  start: str
  normalised: bool

  @nn.compact
  def __call__(self, x, _):
    x = QuadraticDense(x.shape[-1], start=self.start)(x)
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
  layer = QuadraticDense(O, param_dtype=jnp.bfloat16)
  y, variables = jax.eval_shape(layer.init_with_output, jax.random.key(0), x)
  assert {p.dtype for p in jax.tree.leaves((y, variables))} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize(
  'fields, message',
  [
    ({'form': 'cubic'}, r"form='cubic': must be one of 'full', 'compact'"),
    ({'start': 'zero'}, r"start='zero': must be one of 'relinear', 'random'"),
    ({'form': 'square'}, r"start='relinear': must be 'random' with form='square'"),
  ],
)
def test_what_cannot_be_is_refused_by_name(fields, message):
  with pytest.raises(UserError, match=message):
    QuadraticDense(O, **fields).init(jax.random.key(0), normal(2, I))
