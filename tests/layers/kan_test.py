"""Kolmogorov-Arnold layers: base branches, published counts, sizes, configs."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elas_jax.common.errors import UserError
from elas_jax.config.config import KanConfig
from elas_jax.config.kan_checks import POOL, check_kan
from elas_jax.layers.kan import KANS, KanConv
from elas_jax.ops.kan.bspline import extend_grid

I, O = 5, 7
DEFAULT = KanConfig(
  grid=5,
  order=3,
  grid_min=-1.0,
  grid_max=1.0,
  activation='silu',
  function='quad1',
  reduction='global_attn,spatial_attn',
  combine='sum',
  function_norm='batch',
  data_norm='layer',
  polynomial='legendre',
  wavelet='mexican_hat',
  edge='arctan',
  pool='bspline,chebyshev,skan',
  selection='layer',
  phase='full',
  top_k=2,
  init_scale=1.0,
  param_dtype='float32',
)
FAMILIES = [kind for kind in KANS if kind != 'selectable']
configured = functools.partial(dataclasses.replace, DEFAULT)


def normal(seed, *shape):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


X = jnp.asarray(normal(0, 4, 6, I))


@functools.cache
def made(kind, config=DEFAULT):
  """(apply, variables at the start) of a layer, compiled once for all tests."""
  layer = KANS[kind](O, config)
  return jax.jit(layer.apply), jax.jit(layer.init)(jax.random.key(0), X)


def wide(tree):
  return jax.tree.map(lambda a: np.asarray(a, np.float64), tree)


def test_every_family_has_a_layer():
  assert {*POOL, 'selectable'} == set(KANS)


def silu(x):
  return x / (1 + np.exp(-x))


def layer_norm(x):
  mean = x.mean(-1, keepdims=True)
  return (x - mean) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)


# What is left at zero coefficients; zero where a family is not named.
BASES = {
  'bspline': lambda x, p: silu(layer_norm(x)) @ p['base'],
  'bsrbf': lambda x, p: silu(layer_norm(x)) @ p['base'],
  'fast': lambda x, p: silu(x) @ p['base'] + p['bias'],
  'relu': lambda x, p: 0 * x[..., :1] + p['bias'],
}


@pytest.mark.parametrize('kind', FAMILIES)
def test_zero_coefficients_leave_the_base_branch(kind):
  apply, variables = made(kind)
  zeroed = jax.tree.map_with_path(
    lambda path, p: 0 * p if path[-1].key in ('coefficients', 'k', 'kernel') else p,
    variables,
  )
  x, p = np.asarray(X, np.float64), wide(variables['params'])
  expected = BASES.get(kind, lambda x, _: np.zeros((4, 6, O)))(x, p)
  np.testing.assert_allclose(apply(zeroed, X), expected, rtol=1e-4, atol=1e-5)
  assert np.abs(np.asarray(apply(variables, X)) - expected).max() > 1e-4


def test_a_start_of_scale_zero_is_the_base_branch():
  apply, variables = made('fast', configured(init_scale=0.0))
  expected = BASES['fast'](np.asarray(X, np.float64), wide(variables['params']))
  np.testing.assert_allclose(apply(variables, X), expected, rtol=1e-4, atol=1e-5)


def test_a_layer_is_its_bases_times_its_coefficients():
  apply, variables = made('chebyshev', configured(data_norm='none'))
  t = np.tanh(np.asarray(X, np.float64))
  basis = np.polynomial.chebyshev.chebvander(t, DEFAULT.order)
  c = wide(variables['params']['coefficients'])
  expected = np.einsum('blis,iso->blo', basis, c)
  np.testing.assert_allclose(apply(variables, X), expected, rtol=1e-4, atol=1e-6)


class Stack(nn.Module):
  """784 -> 64 -> 10 without anything between the layers."""

  kind: str
  config: KanConfig

  @nn.compact
  def __call__(self, x):
    hidden = KANS[self.kind](64, self.config)(x)
    return KANS[self.kind](10, self.config)(hidden)


# As published for (784, 64, 10). The two LayerNorms of the layers' inputs, 1,696
# parameters, are counted in all but bspline, whose published net has none.
COUNTS = {
  'af': (52_552, {'grid': 3, 'reduction': 'global_attn'}),
  'relu': (316_842, {'grid': 3}),
  'fast': (459_114, {'grid': 8}),
  'bsrbf': (459_040, {}),
  'bspline': (508_160, {'data_norm': 'none'}),
  'faster': (408_224, {'grid': 8}),
  'chebyshev': (204_960, {}),
  'fourier': (509_930, {}),
  'skan': (52_586, {}),
}


@pytest.mark.parametrize('kind', COUNTS)
def test_published_parameter_counts(kind):
  count, fields = COUNTS[kind]
  init = Stack(kind, configured(**fields)).init
  shapes = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 784)))['params']
  assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count


def largest(jaxpr) -> int:
  """The number of entries of the largest array that a jaxpr computes, inner ones too."""
  sizes = [v.aval.size for eqn in jaxpr.eqns for v in eqn.outvars]
  for eqn in jaxpr.eqns:
    for parameter in jax.tree.leaves(list(eqn.params.values()), is_leaf=_has_equations):
      if _has_equations(parameter):
        sizes.append(largest(getattr(parameter, 'jaxpr', parameter)))
  return max(sizes, default=0)


def _has_equations(value) -> bool:
  return hasattr(getattr(value, 'jaxpr', value), 'eqns')


@pytest.mark.parametrize('kind', KANS)
def test_nothing_has_the_size_of_basis_times_outputs(kind):
  """Neither forward nor backward: at most a basis, recursion included, or a weight."""
  rows, inputs, outputs = 40, 6, 50
  layer = KANS[kind](outputs, DEFAULT)
  x = jax.ShapeDtypeStruct((rows, inputs), jnp.float32)
  variables = jax.eval_shape(layer.init, jax.random.key(0), x)
  loss = lambda variables, x: layer.apply(variables, x).sum()
  size = largest(jax.make_jaxpr(jax.grad(loss, (0, 1)))(variables, x).jaxpr)
  bases = DEFAULT.grid + 2 * DEFAULT.order
  assert rows * inputs < size <= max(rows * inputs * bases, inputs * 10 * outputs)
  assert size < rows * inputs * outputs  # nor even inputs times outputs for each row


@pytest.mark.parametrize('kind', FAMILIES)
def test_gradients_are_finite_and_reach_every_parameter(kind):
  apply, variables = made(kind)
  # The second example is far away, the third constant.
  x = X.at[1].mul(100).at[2].set(0.5)
  loss = lambda variables, x: jnp.square(apply(variables, x)).sum()
  slopes, to_x = jax.jit(jax.grad(loss, (0, 1)))(variables, x)
  assert np.isfinite(to_x).all() and np.abs(to_x).max() > 0
  for path, slope in jax.tree.leaves_with_path(slopes['params']):
    assert np.isfinite(slope).all(), path
    # A shift of all logits changes no softmax.
    if "['global_attn']['reduce_bias']" not in jax.tree_util.keystr(path):
      assert np.abs(slope).max() > 0, path


@pytest.mark.parametrize('kind', FAMILIES)
def test_bfloat16_inputs_get_float32_bases(kind):
  apply, variables = made(kind)
  narrow = variables | {
    'params': jax.tree.map(lambda p: p.astype(jnp.bfloat16), variables['params'])
  }
  x = X.astype(jnp.bfloat16)
  y, exact = apply(narrow, x), np.asarray(apply(narrow, x.astype(jnp.float32)))
  assert y.dtype == jnp.bfloat16 and exact.dtype == np.float32
  np.testing.assert_allclose(y.astype(jnp.float32), exact, atol=0.02 * np.abs(exact).max())


@pytest.mark.parametrize('kind', KANS)
def test_parameters_have_the_configured_dtype(kind):
  layer = KANS[kind](O, configured(param_dtype='bfloat16'))
  params = jax.eval_shape(layer.init, jax.random.key(0), X)['params']
  assert {p.dtype for p in jax.tree.leaves(params)} == {jnp.dtype('bfloat16')}


def test_bspline_layer_keeps_its_function_on_a_finer_grid():
  coarse, variables = made('bspline', configured(data_norm='none'))
  start = variables['params'] | {'coefficients': 30 * variables['params']['coefficients']}
  extend = jax.jit(extend_grid, static_argnums=(2, 3))
  coefficients, knots = extend(start['coefficients'], variables['buffers']['knots'], 3, 10)
  params = start | {'coefficients': coefficients}
  assert coefficients.shape == (I, 13, O)
  x = jnp.tanh(X) * 0.99
  finer = jax.jit(KANS['bspline'](O, configured(data_norm='none', grid=10)).apply)
  y = finer({'params': params, 'buffers': {'knots': knots}}, x)
  before = coarse(variables | {'params': start}, x)
  np.testing.assert_allclose(y, before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('function_norm, alone', [('example', True), ('batch', False)])
def test_af_normalisation_of_one_example_or_the_batch(function_norm, alone):
  fields = {'function': 'quad2', 'reduction': 'multistep', 'data_norm': 'none'}
  config = configured(function_norm=function_norm, **fields)
  apply, variables = made('af', config)
  y, other = (apply(variables, x) for x in (X, X.at[1:].mul(5)))
  assert np.allclose(y[0], other[0], rtol=1e-6, atol=1e-7) == alone


def test_af_combines_its_reductions():
  _, variables = made('af')
  joined = jax.jit(KANS['af'](O, configured(combine='quadratic')).apply)
  a, b = (
    jax.jit(KANS['af'](O, configured(reduction=name)).apply)(
      {'params': {name: variables['params'][name]}}, X
    )
    for name in ('global_attn', 'spatial_attn')
  )
  expected = a + b + a * b + a**2 + b**2
  np.testing.assert_allclose(joined(variables, X), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('selection', ['layer', 'node'])
def test_selectable_phases(selection):
  """Full: the weighted sum; pruned: the winner's own layer, for the same parameters."""
  names, (_, variables) = DEFAULT.pool.split(','), made('selectable')
  own = [{c: v[name] for c, v in variables.items() if name in v} for name in names]
  ys = np.stack([made(name)[0](v, X) for name, v in zip(names, own)])
  theta = normal(4, 3, O) if selection == 'node' else normal(4, 3)
  given = variables | {'params': variables['params'] | {'theta': jnp.asarray(theta)}}
  softmax = np.exp(theta) / np.exp(theta).sum(0)
  place = np.argsort(np.argsort(-theta, 0), 0)
  # That each node has its own weights does not depend on the phase.
  phases = [('full', 3), ('selective', 2), ('pruned', 1)][2 * (selection == 'node') :]
  for phase, count in phases:
    config = configured(selection=selection, phase=phase)
    y = jax.jit(KANS['selectable'](O, config).apply)(given, X)
    kept = np.where(place < count, softmax, 0)
    expected = ((kept / kept.sum(0)).reshape(3, 1, 1, -1) * ys).sum(0)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-6)
  best = np.argmax(theta, 0)
  each = np.broadcast_to(best, O)
  winner = np.stack([ys[m, ..., o] for o, m in enumerate(each)], -1)
  np.testing.assert_allclose(y, winner, rtol=1e-5, atol=1e-6)


def test_convolution_is_the_layer_on_patches():
  config, x = configured(pool='chebyshev,skan'), jnp.asarray(normal(0, 2, 6, 6, 3))
  conv = KanConv(O, config, 'selectable', 3, 2)
  variables = jax.jit(conv.init)(jax.random.key(0), x)
  y = np.asarray(jax.jit(conv.apply)(variables, x))
  assert y.shape == (2, 3, 3, O)
  # Zeros beyond the borders, and channels before places in a window.
  padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  window = lambda r, c: padded[:, 2 * r : 2 * r + 3, 2 * c : 2 * c + 3]
  row = lambda r, c: window(r, c).transpose(0, 3, 1, 2).reshape(2, 27)
  rows = np.stack([[row(r, c) for c in range(3)] for r in range(3)])
  layer = jax.jit(KANS['selectable'](O, config).apply)
  expected = layer({'params': variables['params']['kan']}, jnp.asarray(rows))
  np.testing.assert_allclose(y.transpose(1, 2, 0, 3), expected, rtol=1e-4, atol=1e-6)


BAD = {
  'grid': (0, 'at least 1'),
  'order': (6, 'at most model.kan.grid=5'),
  'grid_max': (-1.0, 'larger than model.kan.grid_min=-1.0'),
  'activation': ('sine', "'silu'"),
  'function': ('quad3', "'quad1'"),
  'reduction': ('global_attn,local', "'spatial_attn'"),
  'combine': ('mean', "'sum_product'"),
  'function_norm': ('row', "'example'"),
  'data_norm': ('batch', "'layer'"),
  'polynomial': ('gottlieb', "'legendre'"),
  'wavelet': ('haar', "'shannon'"),
  'edge': ('softplus', "'arctan'"),
  'pool': ('fast,selectable', "'chebyshev'"),
  'selection': ('edge', "'node'"),
  'phase': ('best', "'pruned'"),
  'top_k': (4, 'from 1 to 3'),
  'init_scale': (-1.0, 'at least 0'),
  'param_dtype': ('float16', "'bfloat16'"),
}


def test_every_field_is_checked():
  # The lower end of the grid is what the upper one is compared with.
  assert set(BAD) | {'grid_min'} == {x.name for x in dataclasses.fields(KanConfig)}
  for kind in KANS:
    check_kan(DEFAULT, kind)


@pytest.mark.parametrize('field', BAD)
def test_a_config_that_cannot_be_is_refused_by_name(field):
  value, accepted = BAD[field]
  with pytest.raises(UserError) as error:
    check_kan(configured(**{field: value}), 'bspline')
  message = str(error.value)
  assert (
    message.startswith(f'model.kan.{field}={value!r}: must be ') and accepted in message
  )


def test_more_configs_that_cannot_be():
  for fields in ({'order': 0}, {'pool': 'fast,fast'}, {'reduction': ''}, {'top_k': 0}):
    with pytest.raises(UserError, match=next(iter(fields))):
      check_kan(configured(**fields), 'bspline')


def test_only_splines_need_an_order_within_their_grid():
  steep = configured(order=6)
  check_kan(steep, 'chebyshev')
  check_kan(dataclasses.replace(steep, pool='chebyshev,fast'), 'selectable')
  for kind in ('bspline', 'af', 'selectable'):
    with pytest.raises(UserError, match='model.kan.order=6'):
      check_kan(steep, kind)
