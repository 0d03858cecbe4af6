"""CoLA, LoRA, SLTrain, LOST and the spectral start against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elas_jax.layers.linear import LINEARS
from elas_jax.models.decoder import REMAT_POLICIES, Block, Decoder
from elas_jax.ops.attention import rotary_angles
from elas_jax.ops.linear import kaiming_uniform

I, O, R = 24, 20, 4


def layer_of(make_config, linear, **overrides):
  """(layer, its variables as float64 dicts and as they are, inputs)."""
  fields = {'linear': linear, 'rank': R, 'alpha': 8.0, 'gamma': 0.3, 'sparse_share': 0.125}
  fields |= overrides
  model = make_config(**{f'model.{name}': value for name, value in fields.items()}).model
  layer = LINEARS[linear](O, model)
  x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, I)), jnp.float32)
  variables = jax.jit(layer.init)(jax.random.key(1), x)
  return layer, variables, x


def randomised(variables):
  """Parameters that are nowhere zero, as after some training."""
  random = np.random.default_rng(1)
  draw = lambda p: jnp.asarray(random.normal(size=p.shape), p.dtype)
  return variables | {'params': jax.tree.map(draw, variables['params'])}


def wide(tree):
  return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


def silu(x):
  return x / (1 + np.exp(-x))


def cola(x, p, _):
  return silu(x @ p['a']) @ p['b']


def lora(x, p, _):
  return x @ p['kernel'] + 8 / R * (x @ p['a'] @ p['b'])


def sltrain_weights(p, buffers):
  w = 8 / R * p['a'] @ p['b']
  w.reshape(-1)[np.asarray(buffers['support'], int)] += p['values']
  return w


def sltrain(x, p, buffers):
  return x @ sltrain_weights(p, buffers)


def lost(x, p, buffers):
  sparse = x[..., np.asarray(buffers['columns'], int)] @ p['sparse']
  return 0.3 * silu(x @ p['a']) @ p['b'] + 0.7 * sparse


FORMULAS = {'cola': cola, 'lora': lora, 'sltrain': sltrain, 'lost': lost}


@pytest.mark.parametrize('name', FORMULAS)
def test_output_by_formula(make_config, name):
  layer, variables, x = layer_of(make_config, name)
  variables = randomised(variables)
  expected = FORMULAS[name](wide(x), wide(variables['params']), variables.get('buffers'))
  y = layer.apply(variables, x)
  np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)
  small = layer.apply(variables, x.astype(jnp.bfloat16))
  assert small.dtype == jnp.bfloat16
  error = np.linalg.norm(np.float64(small) - expected)
  assert error < 0.02 * np.linalg.norm(expected)


def gradients(layer, variables, x):
  loss = lambda params: (layer.apply(variables | {'params': params}, x) * GOAL).sum()
  return jax.jit(jax.grad(loss))(variables['params'])


GOAL = np.random.default_rng(2).normal(size=(2, 5, O)).astype(np.float32)


def test_lora_trains_its_factors_only(make_config):
  layer, start, x = layer_of(make_config, 'lora')
  # It starts as its dense map.
  kernel = wide(start['params']['kernel'])
  np.testing.assert_allclose(layer.apply(start, x), wide(x) @ kernel, rtol=1e-4, atol=1e-5)
  assert abs(kernel.std() / 0.02 - 1) < 0.1
  variables = randomised(start)
  found, p = gradients(layer, variables, x), wide(variables['params'])
  assert not found['kernel'].any()
  rows, goal = wide(x).reshape(-1, I), wide(GOAL).reshape(-1, O)
  expected = {'a': 2 * rows.T @ goal @ p['b'].T, 'b': 2 * (rows @ p['a']).T @ goal}
  for name, value in expected.items():
    np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-3)


def test_sltrain(make_config):
  layer, start, x = layer_of(make_config, 'sltrain')
  support = np.asarray(start['buffers']['support'])
  assert len(support) == len(set(support.tolist())) == I * O // 8
  assert support.min() >= 0 and support.max() < I * O
  assert not start['params']['b'].any()
  values = np.abs(start['params']['values'])
  assert 0.9 * I**-0.5 < values.max() <= I**-0.5

  variables = randomised(start)
  found, p = gradients(layer, variables, x), wide(variables['params'])
  dw = wide(x).reshape(-1, I).T @ wide(GOAL).reshape(-1, O)
  expected = {'a': 2 * dw @ p['b'].T, 'b': 2 * p['a'].T @ dw}
  expected['values'] = dw.reshape(-1)[support]
  for name, value in expected.items():
    np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-3)
  # W is formed for the product and not kept.
  f = lambda v, x: jax.vjp(layer.apply, v, x)[1]
  kept = jax.tree.leaves(jax.eval_shape(f, variables, x))
  assert all(x.size != I * O for x in kept)


def test_lost_starts_from_one_dense_start(make_config):
  _, start, _ = layer_of(make_config, 'lost')
  p, columns = wide(start['params']), np.asarray(start['buffers']['columns'])
  # The same key gives the same dense start, of which the full rank keeps everything.
  _, full, _ = layer_of(make_config, 'low_rank', factor_init='spectral', rank=O)
  w = wide(full['params']['a']) @ wide(full['params']['b'])
  assert abs(w.std() / 0.02 - 1) < 0.1
  u, s, vt = np.linalg.svd(w)
  np.testing.assert_allclose(p['a'] @ p['b'], u[:, :R] * s[:R] @ vt[:R], atol=1e-6)
  # Balanced factors of orthogonal directions, in falling order.
  np.testing.assert_allclose(p['a'].T @ p['a'], np.diag(s[:R]), atol=1e-5)
  np.testing.assert_allclose(p['b'] @ p['b'].T, np.diag(s[:R]), atol=1e-5)
  # The columns are those where what A B leaves of W is largest; S is W's own part there,
  # not the remainder's.
  left = np.linalg.norm(w - u[:, :R] * s[:R] @ vt[:R], axis=1)
  assert len(columns) == I // 8
  assert columns.tolist() == np.argsort(-left)[: I // 8].tolist()
  np.testing.assert_allclose(p['sparse'], w[columns], atol=1e-6)


def test_spectral_factors_are_the_best_approximation_and_balanced(make_config):
  _, start, _ = layer_of(make_config, 'low_rank', factor_init='spectral')
  _, full, _ = layer_of(make_config, 'low_rank', factor_init='spectral', rank=O)
  # The same key gives the same dense start, of which the full rank keeps everything.
  w, half = (wide(v['params']['a']) @ wide(v['params']['b']) for v in (full, start))
  assert abs(w.std() / 0.02 - 1) < 0.1
  u, s, vt = np.linalg.svd(w)
  np.testing.assert_allclose(half, u[:, :R] * s[:R] @ vt[:R], atol=1e-6)
  a, b = wide(start['params']['a']), wide(start['params']['b'])
  np.testing.assert_allclose(a.T @ a, b @ b.T, atol=1e-6)
  np.testing.assert_allclose(np.diag(a.T @ a), s[:R], rtol=1e-4)


def test_starting_scales(make_config):
  x = jnp.zeros((1, 200))
  model = make_config(**{'model.linear': 'cola', 'model.rank': 32}).model
  params = LINEARS['cola'](300, model).init(jax.random.key(0), x)['params']
  for factor in (params['a'], params['b']):
    assert abs(float(factor.std()) / (32**-0.25 * 500**-0.25) - 1) < 0.05
  # The product then has a variance of 1 / (I + O).
  assert abs(float((params['a'] @ params['b']).std()) * 500**0.5 - 1) < 0.1
  uniform = kaiming_uniform(jax.random.key(0), (400, 64))
  assert 0.99 / 20 < float(jnp.abs(uniform).max()) <= 1 / 20
  assert abs(float(uniform.std()) * 20 * 3**0.5 - 1) < 0.05


def block_and_arguments(make_config, remat):
  fields = {'linear': 'cola', 'feed_forward': 'swiglu', 'remat': remat, 'layers': 1}
  model = make_config(**{f'model.{name}': value for name, value in fields.items()}).model
  x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 16, 32)), jnp.float32)
  return model, x


def test_cola_m_has_the_gradients_of_cola(make_config):
  tokens = jnp.asarray(np.random.default_rng(0).integers(0, 256, (2, 16)))
  grads = []
  for remat in ('none', 'bottleneck'):
    decoder = Decoder(block_and_arguments(make_config, remat)[0])
    shapes = jax.eval_shape(decoder.init, jax.random.key(0), tokens)
    random = np.random.default_rng(1)
    params = jax.tree.map(lambda p, r=random: r.normal(size=p.shape) * 0.2, shapes)
    params = jax.tree.map(jnp.float32, params)
    loss = lambda p, decoder=decoder: jnp.square(decoder.apply(p, tokens)[0]).mean()
    grads.append(jax.jit(jax.grad(loss))(params))
  for plain, recomputed in zip(*map(jax.tree.leaves, grads)):
    assert plain.any()
    assert np.abs(plain - recomputed).max() <= 1e-3 * np.abs(plain).max()


def test_cola_m_keeps_the_bottlenecks(make_config):
  model, x = block_and_arguments(make_config, 'bottleneck')
  angles = rotary_angles(jnp.arange(16), model.head_size, model.rope_base)
  variables = jax.eval_shape(
    lambda x: Block(model).init(jax.random.key(0), x, None, angles, 0), x
  )
  apply = jax.checkpoint(
    lambda v, x: Block(model).apply(v, x, None, angles, 0)[0],
    policy=REMAT_POLICIES['bottleneck'],
  )
  f = lambda v, x: jax.vjp(apply, v, x)[1]
  kept = [leaf.shape for leaf in jax.tree.leaves(jax.eval_shape(f, variables, x))]
  weights = [leaf.shape for leaf in jax.tree.leaves(variables)]
  shapes = [shape for shape in kept if shape not in weights and shape != angles.shape]
  # x, and x A of each of the seven linear maps.
  assert sorted(shapes) == sorted([x.shape] + 7 * [(2, 16, model.rank)])
