"""The GR-KAN layer: formula, parameters, the variance it keeps, what it refuses."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elas_jax.common.errors import UserError
from elas_jax.ops.rational import evaluate, gain
from elas_jax.systems.linears.rational import GroupRational, Rational
from tests.systems.linears.layers import config_of, layer_of, normal, start

C = 24
PUBLISHED = Rational()


def moved(params):
  """As after some training: every group has another function."""
  return jax.tree.map(lambda p: p + 0.3 * normal(*p.shape, seed=p.size), params)


@pytest.mark.parametrize('numerator, rows', [('shared', 1), ('per_group', 3)])
@pytest.mark.parametrize('denominator', ['absolute_terms', 'absolute_sum'])
def test_gr_kan_by_formula(numerator, rows, denominator):
  """Channel c has the function of group c // (C / groups); then the dense map."""
  x = normal(2, 5, C)
  layer = layer_of(Rational(3, numerator, denominator), 7, use_bias=True)
  params = moved(start(layer, x)['params'])
  a, b = params['rational']['numerator'], params['rational']['denominator']
  assert a.shape == (rows, 6) and b.shape == (3, 4)
  a, b = np.float64(a), np.float64(b)
  f = np.empty(x.shape)
  for c in range(C):
    group = c // (C // 3)
    f[..., c] = evaluate(np.float64(x[..., c]), a[group % rows], b[group], denominator)
  dense = params['dense']
  expected = f @ np.float64(dense['kernel']) + np.float64(dense['bias'])
  y = jax.jit(layer.apply)({'params': params}, x)
  np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)


def test_it_starts_as_its_preset():
  x = np.clip(normal(50, C), -3, 3)
  for preset, target in (('identity', x), ('swish', x / (1 + np.exp(-x)))):
    layer = GroupRational(8, preset)
    np.testing.assert_allclose(layer.apply(start(layer, x), x), target, atol=1e-5)


@pytest.mark.parametrize('opening', [False, True])
def test_the_first_of_two_maps_starts_as_the_identity(opening):
  x = np.clip(normal(50, C), -3, 3)
  layer = layer_of(Rational(), C, opening=opening)
  params = start(layer, x)['params']
  params['dense']['kernel'] = jnp.eye(C)
  target = x if opening else x / (1 + np.exp(-x))
  np.testing.assert_allclose(layer.apply({'params': params}, x), target, atol=1e-5)


def feed_forward(width, hidden, kind=PUBLISHED, use_bias=True):
  """That of KAT: the rationals start as the published pair."""
  up = layer_of(kind, hidden, opening=True, use_bias=use_bias)
  return nn.Sequential([up, layer_of(kind, width, use_bias=use_bias)])


def test_two_layers_keep_the_variance():
  width, hidden = 256, 512
  x = normal(300, width)
  layer = feed_forward(width, hidden)
  params = start(layer, x)['params']
  alphas = {
    'layers_0': gain('identity', 'absolute_terms'),
    'layers_1': gain('swish', 'absolute_terms'),
  }
  assert alphas['layers_1'] > 2.8
  for name, fan_in in (('layers_0', width), ('layers_1', hidden)):
    kernel = np.asarray(params[name]['dense']['kernel'])
    np.testing.assert_allclose(kernel.std(), np.sqrt(alphas[name] / fan_in), rtol=0.02)
  y = jax.jit(layer.apply)({'params': params}, x)
  assert y.shape == x.shape
  np.testing.assert_allclose(np.asarray(y).var(), 1, rtol=0.1)
  # An MLP's, and 6 + 8 * 4 for each of two rational layers.
  count = sum(p.size for p in jax.tree.leaves(params))
  assert count == 2 * width * hidden + width + hidden + 2 * 38


def test_every_parameter_gets_a_gradient():
  x, goal = normal(2, 9, C), normal(2, 9, C, seed=1)
  layer = feed_forward(C, 2 * C, Rational(4, 'per_group'))
  loss = lambda variables: (layer.apply(variables, x) * goal).sum()
  for gradient in jax.tree.leaves(jax.jit(jax.grad(loss))(start(layer, x))):
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max(-1).min() > 0


def test_bf16_in_bf16_out():
  x = jnp.asarray(normal(4, C), jnp.bfloat16)
  layer = feed_forward(C, 2 * C, use_bias=False)
  y, variables = jax.eval_shape(layer.init_with_output, jax.random.key(0), x)
  assert y.dtype == jnp.bfloat16
  assert sorted(variables['params']['layers_0']['dense']) == ['kernel']
  assert all(p.dtype == jnp.float32 for p in jax.tree.leaves(variables))


@pytest.mark.parametrize(
  'groups, message',
  [
    (
      7,
      r'^model.linear.groups=7: must divide model.width=24; accepted: 1, 2, 3, 4, 6, 8, '
      r'12, 24$',
    ),
    (0, r'^model.linear.groups=0: must be at least 1$'),
    (12, r'^model.linear.groups=12: must divide the entries of model.input_shape=40; '),
  ],
)
def test_what_cannot_be_is_refused_by_name(groups, message):
  widths = {'model.width': C, 'the entries of model.input_shape': 40}
  with pytest.raises(UserError, match=message):
    Rational(groups).check('model.linear', config_of('classification', **widths))
  Rational(8).check('model.linear', config_of('classification', **widths))
