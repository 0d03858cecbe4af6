"""ReLinear's optimisation: what each branch is moved by, and the plain net's trajectory."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from elas_jax.common.paths import match
from elas_jax.ops.linear import dense
from elas_jax.systems.kinds import no_decay
from elas_jax.systems.linears.quadratic import (
  BRANCHES,
  Quadratic,
  shrink_gradients,
  shrink_weights,
)
from tests.systems.linears.layers import parts_of

D = 6


def normal(seed, *shape):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


class Plain(nn.Module):
  features: int

  @nn.compact
  def __call__(self, x):
    kernel = self.param('kernel', nn.initializers.normal(0.4), (x.shape[-1], self.features))
    bias = self.param('bias', nn.initializers.zeros, (self.features,))
    return dense(x, kernel) + bias.reshape(1, -1)


class Net(nn.Module):
  quadratic: bool

  @nn.compact
  def __call__(self, x):
    kind = Quadratic()
    ours = functools.partial(kind.make, parts=parts_of(kind, init_std=0.4, use_bias=True))
    layer = ours if self.quadratic else Plain
    for name in ('first', 'second'):
      x = jnp.tanh(layer(D, name=name)(x))
    return Plain(1, name='linear.head')(x)


@functools.cache
def parameters(quadratic=True):
  return jax.jit(Net(quadratic).init)(jax.random.key(0), normal(0, 2, D))['params']


def train(quadratic, optimizer, steps=3):
  """The parameters after each step.

  Not compiled: XLA may sum the same rows in another order in another program.
  """
  net, params = Net(quadratic), parameters(quadratic)
  state = optimizer.init(params)

  def step(params, state, x):
    loss = lambda params: ((net.apply({'params': params}, x) - x[:, :1]) ** 2).mean()
    updates, state = optimizer.update(jax.grad(loss)(params), state, params)
    return optax.apply_updates(params, updates), state

  history = []
  for number in range(steps):
    params, state = step(params, state, normal(number, 16, D))
    history.append(params)
  return history


def test_gamma_zero_is_the_plain_nets_trajectory_exactly():
  """Whatever the optimiser does with gradients and parameters before the factors."""
  inner = optax.chain(optax.clip_by_global_norm(0.05), optax.adamw(0.01, weight_decay=0.1))
  plain = train(False, inner)
  ours = train(True, shrink_gradients(inner, gamma_g=0, gamma_b=0))
  for a, b in zip(ours, plain, strict=True):
    for layer in ('first', 'second'):
      for kind in ('kernel', 'bias'):
        np.testing.assert_array_equal(a[layer][kind + '_r'], b[layer][kind])
        np.testing.assert_array_equal(a[layer][kind + '_b'], 0)
      np.testing.assert_array_equal(a[layer]['kernel_g'], 0)
      np.testing.assert_array_equal(a[layer]['bias_g'], 1)
    np.testing.assert_array_equal(a['linear.head']['kernel'], b['linear.head']['kernel'])


def test_branches_by_path():
  found = match(parameters(), BRANCHES, 'relinear')
  quadratic = {f'{kind}_{b}': b for kind in ('kernel', 'bias') for b in 'rgb'}
  plain = {'kernel': 'r', 'bias': 'r'}
  assert found == {'first': quadratic, 'second': quadratic, 'linear.head': plain}


def test_factors_act_on_updates():
  """Adam's updates do not change with the scale of gradients; ours have to."""
  params, grads = (
    parameters(),
    jax.tree.map(lambda p: normal(p.size, *p.shape), parameters()),
  )
  inner = optax.adam(0.01)
  plain, _ = inner.update(grads, inner.init(params), params)
  optimizer = shrink_gradients(inner, gamma_g=0.01, gamma_b=0.1)
  updates, _ = jax.jit(optimizer.update)(grads, optimizer.init(params), params)
  factors = {'r': 1, 'g': 0.01, 'b': 0.1}
  expected = jax.tree.map(
    lambda u, branch: factors[branch] * u, plain, match(params, BRANCHES, 'relinear')
  )
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), updates, expected)


def test_gamma_one_is_plain_quadratic_training():
  ours = train(True, shrink_gradients(optax.adam(0.01), gamma_g=1, gamma_b=1), 2)
  plain = train(True, optax.adam(0.01), 2)
  jax.tree.map(np.testing.assert_array_equal, ours, plain)
  assert np.abs(plain[-1]['first']['kernel_g']).min() > 1e-3


def test_shrunk_weights_equal_numpy():
  params = jax.tree.map(lambda p: normal(p.size, *p.shape), parameters())
  optimizer = optax.chain(
    shrink_weights(alpha_g=0.3, alpha_b=0.7), optax.scale_by_learning_rate(0.5)
  )
  state, ours = optimizer.init(params), params
  zeros = jax.tree.map(jnp.zeros_like, params)
  for _ in range(3):
    updates, state = jax.jit(optimizer.update)(zeros, state, ours)
    ours = optax.apply_updates(ours, updates)
  keep = {'r': 1, 'g': (1 - 0.5 * 0.3) ** 3, 'b': (1 - 0.5 * 0.7) ** 3}
  for name in parameters()['first']:
    target = float(name == 'bias_g')
    expected = target + keep[name[-1]] * (params['first'][name] - target)
    np.testing.assert_allclose(ours['first'][name], expected, rtol=1e-5, atol=1e-6)
  jax.tree.map(np.testing.assert_array_equal, ours['linear.head'], params['linear.head'])


def test_shrunk_weights_do_not_move_the_start():
  params = parameters()
  optimizer = shrink_weights(alpha_g=1, alpha_b=1)
  zeros = jax.tree.map(jnp.zeros_like, params)
  directions, _ = optimizer.update(zeros, optimizer.init(params), params)
  assert not any(d.any() for d in jax.tree.leaves(directions))


def test_what_weight_decay_leaves_alone_holds_b_g():
  """Decay would pull it from 1 to 0."""
  params, left = parameters(), no_decay(Quadratic())
  mask = jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key not in left, params)
  zeros = jax.tree.map(jnp.zeros_like, params)
  moved = {}
  for name, chosen in (('with', mask), ('without', None)):
    optimizer = optax.adamw(0.1, weight_decay=0.1, mask=chosen)
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    moved[name] = optax.apply_updates(params, updates)
  for layer in ('first', 'second'):
    np.testing.assert_array_equal(moved['with'][layer]['bias_g'], 1)
    np.testing.assert_allclose(moved['without'][layer]['bias_g'], 0.99, rtol=1e-6)
    shrunk = 0.99 * params[layer]['kernel_r']
    np.testing.assert_allclose(moved['with'][layer]['kernel_r'], shrunk, rtol=1e-5)
