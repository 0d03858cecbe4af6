"""The layers of KAT: formula, parameters, the variance they keep, what they refuse."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elas_jax.common.errors import UserError
from elas_jax.layers.rational import GroupRational, GroupRationalDense
from elas_jax.ops.rational import evaluate, gain

C = 24


def normal(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def start(layer, x):
  return jax.jit(layer.init)(jax.random.key(0), x)['params']


def randomised(params):
  """As after some training: every group has another function."""
  move = lambda p: p + 0.3 * normal(*p.shape, seed=p.size)
  return jax.tree.map(move, params)


@pytest.mark.parametrize('numerator, rows', [('shared', 1), ('per_group', 3)])
@pytest.mark.parametrize('denominator', ['absolute_terms', 'absolute_sum'])
def test_gr_kan_by_formula(numerator, rows, denominator):
  """Channel c has the function of group c // (C / groups); then the dense map."""
  x = normal(2, 5, C)
  layer = GroupRationalDense(7, 3, 'swish', numerator, denominator)
  params = randomised(start(layer, x))
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
    np.testing.assert_allclose(
      layer.apply({'params': start(layer, x)}, x), target, atol=1e-5
    )


def feed_forward(width, hidden, groups=8, **fields):
  """That of KAT: the rationals start as the published pair."""
  up = GroupRationalDense(hidden, groups, 'identity', **fields)
  return nn.Sequential([up, GroupRationalDense(width, groups, 'swish', **fields)])


def test_two_layers_keep_the_variance():
  width, hidden = 256, 512
  x = normal(300, width)
  layer = feed_forward(width, hidden)
  params = start(layer, x)
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
  layer = feed_forward(C, 2 * C, groups=4, numerator='per_group')
  loss = lambda params: (layer.apply({'params': params}, x) * goal).sum()
  for gradient in jax.tree.leaves(jax.jit(jax.grad(loss))(start(layer, x))):
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max(-1).min() > 0


def test_bf16_in_bf16_out():
  x, layer = (
    jnp.asarray(normal(4, C), jnp.bfloat16),
    feed_forward(C, 2 * C, use_bias=False),
  )
  y, variables = jax.eval_shape(layer.init_with_output, jax.random.key(0), x)
  assert y.dtype == jnp.bfloat16
  assert sorted(variables['params']['layers_0']['dense']) == ['kernel']
  assert all(p.dtype == jnp.float32 for p in jax.tree.leaves(variables))


@pytest.mark.parametrize(
  'fields, message',
  [
    ({'groups': 7}, r'groups=7: must divide.*24.*accepted: 1, 2, 3, 4, 6, 8, 12, 24'),
    ({'groups': 0}, r'groups=0: .*accepted: 1, 2'),
    ({'preset': 'silu'}, r"preset='silu': must be one of 'identity', 'swish'"),
    ({'denominator': 'sum'}, r"denominator='sum': must be one of 'absolute_terms'"),
    ({'numerator': 'each'}, r"numerator='each': must be one of 'shared', 'per_group'"),
  ],
)
def test_what_cannot_be_is_refused_by_name(fields, message):
  with pytest.raises(UserError, match=message):
    GroupRational(**fields).init(jax.random.key(0), normal(2, C))
