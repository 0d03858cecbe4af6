"""Kolmogorov-Arnold kinds: truths, published counts, sizes, gradients, places."""

import dataclasses
import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.interpolate import BSpline as SciPySpline

from elas_jax.common.paths import names
from elas_jax.ops.kan.bspline import extend_grid
from elas_jax.systems import kinds
from elas_jax.systems.activations import ACTIVATIONS
from elas_jax.systems.linears import LINEARS
from elas_jax.systems.linears.kan_bspline import true_splines
from elas_jax.systems.linears.kan_selectable import FAMILIES, Selectable
from tests.conftest import thinned

I, O = 5, 7
KANS = {**FAMILIES, 'selectable': Selectable}
CASES = [case for kind in KANS.values() for case in kinds.room(kind).CASES]


def normal(seed, *shape):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


X = jnp.asarray(normal(0, 4, 6, I))


def parts(kind, **fields):
  return kinds.Parts(width=8, hidden=16, linear=kind, norm=None, **fields)


def layer_of(kind, features=O, **fields):
  return kind.make(features, parts(kind, **fields), 'map')


@functools.cache
def made(kind):
  """(apply, variables at the start) of a layer, compiled once for all tests."""
  layer = layer_of(kind)
  return jax.jit(layer.apply), jax.jit(layer.init)(jax.random.key(0), X)


def shapes_of(kind, inputs=I, **fields):
  """Path -> shape and dtype of each parameter and, apart, of each buffer."""
  init = layer_of(kind, **fields).init
  variables = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, inputs)))
  flat = lambda tree: dict(zip(names(tree), jax.tree.leaves(tree)))
  return flat(variables['params']), flat(variables.get('buffers', {}))


def moved(variables):
  """Every parameter a little away from its start, which may be zero or one."""
  seeds = iter(range(1000))
  nudge = lambda p: p + 0.1 * normal(next(seeds), *p.shape)
  return variables | {'params': jax.tree.map(nudge, variables['params'])}


def merged(*trees):
  """Nested dicts as one, in float64."""
  found = {}
  for name in dict.fromkeys(name for tree in trees for name in tree):
    values = [tree[name] for tree in trees if name in tree]
    nested = isinstance(values[0], dict)
    found[name] = merged(*values) if nested else np.asarray(values[0], np.float64)
  return found


def test_every_family_is_a_linear_map_with_cases():
  named = {f'kan_{name}': kind for name, kind in KANS.items()}
  assert {name: LINEARS[name] for name in named} == named
  assert all(any(type(case) is kind for case in CASES) for kind in KANS.values())


@pytest.mark.parametrize('order', [1, 2, 3])
def test_the_splines_of_the_truth_are_those_of_scipy(order):
  knots = np.cumsum(0.2 + np.random.default_rng(0).uniform(size=(2, 12)), 1)
  x = np.random.default_rng(1).uniform(0, knots.max(), (50, 2))
  basis = true_splines(x, knots, order)
  for i in range(2):
    for s in range(basis.shape[-1]):
      spline = SciPySpline.basis_element(knots[i, s : s + order + 2], extrapolate=False)
      np.testing.assert_allclose(basis[:, i, s], np.nan_to_num(spline(x[:, i])), atol=1e-12)


def silu(x):
  return x / (1 + np.exp(-x))


def layer_norm(x):
  return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)


# What is left at zero coefficients; zero where a family is not named.
BASES = {
  'bspline': lambda x, p: silu(x) @ p['base'],
  'bsrbf': lambda x, p: silu(layer_norm(x)) @ p['base'],
  'fast': lambda x, p: silu(x) @ p['base'] + p['bias'],
  'relu': lambda x, p: 0 * x[..., :1] + p['bias'],
}


@pytest.mark.parametrize('name', thinned(FAMILIES, 'bspline', 'relu'))
def test_a_start_of_scale_zero_is_the_base_branch(name):
  kind = KANS[name](init_scale=0.0)
  variables = jax.jit(layer_of(kind).init)(jax.random.key(0), X)
  apply, started = made(KANS[name]())
  x, p = np.asarray(X, np.float64), merged(variables['params'])
  expected = BASES.get(name, lambda x, _: np.zeros((4, 6, O)))(x, p)
  np.testing.assert_allclose(apply(variables, X), expected, rtol=1e-4, atol=1e-5)
  assert np.abs(np.asarray(apply(started, X)) - expected).max() > 1e-4


# As published for (784, 64, 10). The two LayerNorms of the layers' inputs, 1,696
# parameters, are counted in all but bspline, whose published net has none.
COUNTS = {
  'af': 52_552,
  'relu': 316_842,
  'fast': 459_114,
  'bsrbf': 459_040,
  'bspline': 508_160,
  'faster': 408_224,
  'chebyshev': 204_960,
  'fourier': 509_930,
  'skan': 52_586,
}


@pytest.mark.parametrize('name', COUNTS)
def test_defaults_have_the_published_parameter_counts(name):
  kind = KANS[name]()
  both = (shapes_of(kind, 784, features=64)[0], shapes_of(kind, 64, features=10)[0])
  leaves = [leaf for params in both for leaf in params.values()]
  assert sum(leaf.size for leaf in leaves) == COUNTS[name]


@pytest.mark.parametrize('kind', CASES, ids=lambda kind: type(kind).__name__)
def test_every_array_has_axes_decay_and_flops(kind):
  params, buffers = shapes_of(kind)
  both, axes = params | buffers, kinds.axes(kind)
  assert {path: leaf.ndim for path, leaf in both.items()} == {
    path: len(roles) for path, roles in axes.items()
  }
  for path, roles in axes.items():
    split = path.rpartition('/')[2] == 'coefficients'
    assert roles == (('in', None, 'out') if split else (None,) * len(roles)), path
  # Norms and biases are not pulled to zero.
  kept = [path for path in params if re.search(r'(norm/scale|bias)$', path)]
  assert sorted(kinds.no_decay(kind)) == sorted(kept)
  # Whatever multiplies inputs or bases: all that has outputs but the spline's scaler.
  products = [
    leaf.size
    for path, leaf in params.items()
    if leaf.ndim > 1 and leaf.shape[-1] == O and not path.endswith(('scaler', 'theta'))
  ]
  shapes = {path: leaf.shape for path, leaf in both.items()}
  assert products and kinds.flops(kind, shapes) == 6 * sum(products)


@pytest.mark.parametrize('kind', CASES, ids=lambda kind: type(kind).__name__)
def test_bases_are_known_before(kind):
  params, _ = shapes_of(kind)
  sizes = [x.shape[1] for path, x in params.items() if path.endswith('coefficients')]
  assert max(sizes, default=kind.bases()) == kind.bases()
  assert 1 <= kind.bases() <= 10


@pytest.mark.parametrize('name', KANS)
def test_a_decoder_has_the_layer_inside_of_the_map(name):
  kind = KANS[name]()
  for flat, nested in zip(shapes_of(kind), shapes_of(kind, nested=True)):
    assert {f'{kind.nested}/{path}': leaf for path, leaf in flat.items()} == nested


@pytest.mark.parametrize('name', KANS)
def test_parameters_have_the_dtype_of_the_parts(name):
  params, _ = shapes_of(KANS[name](), param_dtype='bfloat16')
  assert {leaf.dtype for leaf in params.values()} == {jnp.dtype('bfloat16')}


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


@pytest.mark.parametrize('name', KANS)
def test_nothing_has_the_size_of_basis_times_outputs(name):
  """Neither forward nor backward: at most a basis, recursion included, or a weight."""
  rows, inputs, outputs = 40, 6, 50
  layer = layer_of(KANS[name](), outputs)
  x = jax.ShapeDtypeStruct((rows, inputs), jnp.float32)
  variables = jax.eval_shape(layer.init, jax.random.key(0), x)
  loss = lambda variables, x: layer.apply(variables, x).sum()
  size = largest(jax.make_jaxpr(jax.grad(loss, (0, 1)))(variables, x).jaxpr)
  assert rows * inputs < size <= max(rows * inputs * 11, inputs * 10 * outputs)
  assert size < rows * inputs * outputs  # nor even inputs times outputs for each row


@pytest.mark.parametrize('name', thinned(FAMILIES, 'bspline', 'wavelet'))
def test_gradients_are_finite_and_reach_every_parameter(name):
  fields = {'reduction': 'global_attn,spatial_attn'} if name == 'af' else {}
  apply, variables = made(KANS[name](**fields))
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


@pytest.mark.parametrize('name', thinned(FAMILIES, 'bspline', 'af'))
def test_bfloat16_inputs_get_float32_bases(name):
  apply, variables = made(KANS[name]())
  cast = lambda p: p.astype(jnp.bfloat16)
  narrow = variables | {'params': jax.tree.map(cast, variables['params'])}
  x = X.astype(jnp.bfloat16)
  y, exact = apply(narrow, x), np.asarray(apply(narrow, x.astype(jnp.float32)))
  assert y.dtype == jnp.bfloat16 and exact.dtype == np.float32
  np.testing.assert_allclose(y.astype(jnp.float32), exact, atol=0.02 * np.abs(exact).max())


def test_bspline_layer_keeps_its_function_on_a_finer_grid():
  coarse, variables = made(KANS['bspline']())
  start = variables['params'] | {'coefficients': 30 * variables['params']['coefficients']}
  extend = jax.jit(extend_grid, static_argnums=(2, 3))
  coefficients, knots = extend(start['coefficients'], variables['buffers']['knots'], 3, 10)
  params = start | {'coefficients': coefficients}
  assert coefficients.shape == (I, 13, O)
  x = jnp.tanh(X) * 0.99
  finer = jax.jit(layer_of(KANS['bspline'](grid=10)).apply)
  y = finer({'params': params, 'buffers': {'knots': knots}}, x)
  before = coarse(variables | {'params': start}, x)
  np.testing.assert_allclose(y, before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('function_norm', ['example', 'batch'])
def test_af_says_whether_it_mixes_rows(function_norm):
  kind = KANS['af'](
    function='quad2',
    reduction='multistep',
    data_norm='none',
    function_norm=function_norm,
  )
  apply, variables = made(kind)
  y, other = (apply(variables, x) for x in (X, X.at[1:].mul(5)))
  alone = np.allclose(y[0], other[0], rtol=1e-6, atol=1e-7)
  assert bool(kind.mixes_rows()) == (not alone) == (function_norm == 'batch')
  expected = kinds.room(kind).truth(
    kind, np.asarray(X, np.float64), merged(variables['params'])
  )
  np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-6)


def test_a_selectable_layer_mixes_rows_if_a_member_does():
  batch = {'function_norm': 'batch'}
  assert Selectable(pool='fast,af', **batch).mixes_rows()
  assert not Selectable(pool='fast,af').mixes_rows()
  assert not Selectable(pool='fast,skan', **batch).mixes_rows()
  mixing = [c for c in CASES if kinds.about(c, 'mixes_rows', default=False)]
  assert mixing == [KANS['af'](function_norm='batch')]


def test_members_of_a_pool_get_every_field_that_they_have():
  values = {
    'grid': 6,
    'order': 2,
    'grid_min': -3.0,
    'grid_max': 2.5,
    'activation': ACTIVATIONS['gelu'](approximate=False),
    'function': 'prod',
    'reduction': 'multistep',
    'combine': 'product',
    'function_norm': 'none',
    'polynomial': 'jacobi',
    'wavelet': 'dog',
    'edge': 'sin',
    'data_norm': 'none',
    'init_scale': 0.5,
  }
  kind = Selectable(pool=','.join(FAMILIES), **values)
  for name, member in kind.members().items():
    assert type(member) is FAMILIES[name]
    own = {field.name: getattr(member, field.name) for field in dataclasses.fields(member)}
    assert own == {field: values[field] for field in own}


class Conv(nn.Module):
  kind: object

  @nn.compact
  def __call__(self, x):
    return self.kind.convolve(O, (3, 3), 2, parts(self.kind), 'layer')(x)


def test_convolution_is_the_layer_on_patches():
  kind, x = Selectable(pool='chebyshev,skan'), jnp.asarray(normal(0, 2, 6, 6, 3))
  variables = jax.jit(Conv(kind).init)(jax.random.key(0), x)
  y = np.asarray(jax.jit(Conv(kind).apply)(variables, x))
  assert y.shape == (2, 3, 3, O)
  # Zeros beyond the borders, and channels before places in a window.
  padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  window = lambda r, c: padded[:, 2 * r : 2 * r + 3, 2 * c : 2 * c + 3]
  row = lambda r, c: window(r, c).transpose(0, 3, 1, 2).reshape(2, 27)
  rows = np.stack([[row(r, c) for c in range(3)] for r in range(3)])
  layer = jax.jit(layer_of(kind).apply)
  expected = layer({'params': variables['params']['layer']['kan']}, jnp.asarray(rows))
  np.testing.assert_allclose(y.transpose(1, 2, 0, 3), expected, rtol=1e-4, atol=1e-6)


class Swish(nn.Module):
  """x sigmoid(a x), with a trained slope of each input."""

  @nn.compact
  def __call__(self, x):
    a = self.param('a', nn.initializers.ones, x.shape[-1:])
    return x * jax.nn.sigmoid(a.reshape((1,) * (x.ndim - 1) + a.shape) * x)


@dataclasses.dataclass(frozen=True)
class TrainedSwish:
  def make(self, parts, name):
    return Swish(name=name)


AXES, NO_DECAY = {'a': ('in',)}, ('a',)
truth = lambda kind, x, p: x / (1 + np.exp(-p['a'] * x))


@pytest.mark.parametrize('name', thinned(['bspline', 'fast', 'bsrbf', 'af'], 'bspline'))
def test_an_activation_may_be_trained(name):
  kind = KANS[name](activation=TrainedSwish())
  (params, buffers), branch = shapes_of(kind), 'global_attn/' * (name == 'af')
  path = f'{branch}activation/a'
  assert params[path].shape == (I,) and {*params, *buffers} == set(kinds.axes(kind))
  assert kinds.axes(kind)[path] == (None,) and path in kinds.no_decay(kind)
  apply, variables = made(kind)
  given = moved(variables)
  p = merged(*given.values())
  expected = kinds.room(kind).truth(kind, np.asarray(X, np.float64), p)
  np.testing.assert_allclose(apply(given, X), expected, rtol=1e-4, atol=1e-5)
