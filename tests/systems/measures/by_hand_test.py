"""Measures of activations, by hand."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elas_jax.run.state import init_variables
from elas_jax.systems.activations import ACTIVATIONS
from elas_jax.systems.architectures import ARCHITECTURES
from elas_jax.systems.measures import MEASURES
from elas_jax.systems.seen import Seen
from elas_jax.systems.sown import asked
from elas_jax.tasks import task_of
from tests.conformance.hosts import batch, language, network, transformer

LATER = pytest.mark.conformance


def seen(weights, matrices=None, **sown):
  """A pass of which only this is known."""
  rest = dict.fromkeys(('config', 'params', 'buffers', 'batch', 'outputs', 'changed'))
  arrays = {
    name: {path: jnp.asarray(x) for path, x in of.items()} for name, of in sown.items()
  }
  return Seen(
    **rest,
    weights=jnp.asarray(weights, jnp.float32),
    sums={'count': jnp.sum(jnp.asarray(weights))},
    sown=arrays,
    matrices=lambda: {name: (jnp.asarray(x),) for name, x in (matrices or {}).items()},
    again=None,
  )


def close(found, expected):
  for name, value in expected.items():
    np.testing.assert_allclose(found[name], value, rtol=1e-6, err_msg=name)


def test_chunks_stay_in_their_rows():
  """Two rows of five tokens, the last of them not valid: two chunks of two in each."""
  y = np.ones((10, 3), np.float32)
  y[:, 0] = 0  # off everywhere
  y[[1, 2], 1] = 0  # in two chunks, so in neither as a whole
  y[[2, 3, 5, 6], 2] = 0  # in one chunk of each row
  weights = [[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]]
  found = MEASURES['sparsity'](chunk=2).measure(
    seen(weights, activation={'x': y}, experts={})
  )
  of_chunks = [1, 2, 2, 1]  # of three units off, in the chunks that count
  close(found, {'tls': [15 / 27], 'nonzero_share': [12 / 27], 'cls': [sum(of_chunks) / 12]})


def test_the_units_are_experts_where_there_are_some():
  y = np.ones((2, 4, 6), np.float32)  # two layers, of four tokens
  experts = np.array([[[1, 0], [0, 0], [0, 2], [0, 3]]] * 2, np.float32)
  experts[1, 0, 0] = 0
  given = seen([[1, 1, 1, 1]], activation={'x': y}, experts={'x': experts})
  found = MEASURES['sparsity'](chunk=4).measure(given)
  close(found, {'zero_fraction': [0, 0], 'tls': [5 / 8, 6 / 8], 'cls': [0, 1 / 2]})
  assert 'cls' not in MEASURES['sparsity'](chunk=5).measure(given)
  nothing = seen([[1, 1, 1, 0]], activation={'x': y}, experts={'x': experts})
  assert np.isnan(MEASURES['sparsity'](chunk=4).measure(nothing)['cls']).all()


@pytest.mark.parametrize('paths', [('f', 'f/up'), ('n/activation_3', 'n/layer_3')])
def test_statically_dead_are_not_dynamically_dead(paths):
  y = np.zeros((4, 5), np.float32)
  y[0, 0] = y[1, 1] = y[3, 2] = 1  # the third only where no token is
  w = np.ones((2, 5), np.float32)
  w[:, [0, 3]] = 0  # the first lives by its bias
  found = MEASURES['dead_neurons']().measure(
    seen([[1, 1, 1, 0]], {paths[1]: w}, activation={paths[0]: y})
  )
  close(found, {'dynamic_rate': [2 / 4], 'static_rate': [1 / 5], 'alive_share': [2 / 5]})


def test_a_gate_without_inputs_is_enough_and_factors_are_one_map():
  y, zero, ones = np.zeros((1, 2, 3), np.float32), np.zeros((1, 2, 3)), np.ones((1, 2, 3))
  measure = MEASURES['dead_neurons']().measure
  some = zero + [1, 0, 0]
  maps = {'f/up': ones, 'f/gate': some, 'f/down': np.zeros((1, 3, 2))}
  close(measure(seen([[1, 1]], maps, activation={'f': y})), {'static_rate': [2 / 3]})
  # Of a quadratic layer both kernels must be zero.
  maps = {'f/up/kernel_r': zero, 'f/up/kernel_b': some, 'f/upper': zero}
  close(measure(seen([[1, 1]], maps, activation={'f': y})), {'static_rate': [2 / 3]})
  given = seen([[1, 1]], activation={'f': y})
  two = types.SimpleNamespace(
    sown=given.sown,
    weights_of=given.weights_of,
    matrices=lambda: {'f/up': (jnp.ones((1, 2, 4)), jnp.zeros((1, 4, 3)))},
  )
  close(measure(two), {'static_rate': [1]})


def test_codes_of_many_units():
  """As np.unique counts them, of layers of two widths, some inputs being no inputs."""
  random = np.random.default_rng(0)
  base = random.normal(size=(9, 70)).astype(np.float32)
  rows = random.integers(0, 9, 40)
  wide = base[rows]
  wide[5] = wide[6]
  wide[5, 64] = -wide[6, 64]  # they differ in their last word alone
  wide[30:] = random.normal(size=(10, 70))  # of no inputs
  wide[:, 3] = 1
  narrow = random.normal(size=(3, 2)).astype(np.float32)[rows % 3]
  weights = np.ones(40)
  weights[30:] = 0
  found = MEASURES['codes']().measure(seen(weights, activation={'a': wide, 'b': narrow}))
  codes = [x[:30] > 0 for x in (wide, narrow)]
  unique = lambda code: len(np.unique(code, axis=0))
  constant = [((x.min(0) == x.max(0)).mean()) for x in codes]
  close(
    found,
    {
      'redundancy': [(30 - unique(x)) / 30 for x in codes],
      'constant_share': constant,
      'joint_redundancy': (30 - unique(np.hstack(codes))) / 30,
    },
  )
  assert constant[0] > 0


def test_the_place_of_a_massive_activation():
  x = np.ones((1, 8, 4), np.float32)
  x[0, 6, 3], x[0, 7, 1] = -50, 90  # the larger is at no token
  given = seen([[1, 1, 1, 1], [1, 1, 1, 0]], residual={'layers': x})
  found = MEASURES['massive']().measure(given)
  close(found, {'ratio': [50], 'largest/position': [2], 'largest/feature': [3]})


@pytest.mark.parametrize(
  'published', [(0.199, 0.1245, 1.124e-4, 0.6212, 0.1219), (80.0, 0.02, 2e-5, 0.9, 5.0)]
)
def test_a_curve_is_found_again(published):
  """The published one of the layers of Pythia 410m, and one that does not fall."""
  A, decay, gamma, t0, K = published
  steps = np.array([0, 1, 2, 4, 16, 64, 256, *range(1000, 144_000, 11_000)], float)
  x = gamma * steps + t0
  values = A * np.exp(-decay * x) * np.log(x) + K
  curve = MEASURES['massive']().fitted(steps, values)
  assert curve.r2(steps, values) > 0.99999
  found = [curve.parameters[name] for name in ('A', 'lambda', 'gamma', 't0', 'K')]
  np.testing.assert_allclose(found, published, rtol=0.02)
  fine = np.arange(1.0, 1e7, 1000)
  on = A * np.exp(-decay * (gamma * fine + t0)) * np.log(gamma * fine + t0)
  assert curve.parameters['peak_step'] == pytest.approx(fine[on.argmax()], rel=0.02)
  rough = values * (1 + 0.2 * np.sin(9 * steps))
  errors = rough - curve.at(steps)
  expected = 1 - (errors**2).mean() / rough.var()
  assert curve.r2(steps, rough) == pytest.approx(expected)


RELU = {'activation': ACTIVATIONS['relu'](), 'depth': 2}


@pytest.mark.parametrize(
  'config, layers',
  [
    (network(**RELU), 2),
    pytest.param(network(**RELU, architecture=ARCHITECTURES['convnet']()), 2, marks=LATER),
    pytest.param(network(**RELU, architecture=ARCHITECTURES['resnet']()), 13, marks=LATER),
    pytest.param(language(), 2, marks=LATER),
    pytest.param(transformer(), 1, marks=LATER),
  ],
  ids=['stack', 'convnet', 'resnet', 'decoder', 'vit'],
)
def test_units_without_inputs_are_dead_in_any_network(config, layers):
  """One of the first layer, or of each feed-forward, that has lost its weights."""
  kinds = tuple(MEASURES[name]() for name in ('dead_neurons', 'codes', 'sparsity'))
  variables = init_variables(config)

  @jax.jit
  def look(params):
    now, key = variables | {'params': params}, jax.random.key(0)
    rows = {name: jnp.asarray(x) for name, x in batch(config).items()}
    seen = task_of(config).forward(config, now, rows, key, False, asked(kinds))
    return [kind.measure(seen) for kind in kinds]

  def without_inputs(path, p):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    first = name.endswith(('layer_0/kernel', 'first_0_0/kernel', 'up/kernel'))
    return p.at[..., 0].set(0) if first else p

  params = jax.tree_util.tree_map_with_path(without_inputs, variables['params'])
  dead, codes, sparsity = look(params)
  for values in (dead, codes, sparsity):
    shapes = {np.shape(x) for x in values.values()}
    assert shapes <= {(layers,), ()} and all(np.isfinite(x).all() for x in values.values())
  cut = dead['static_rate'] > 0
  assert cut.sum() == (layers if 'feed_forward' in str(config.model) else 1)
  assert (codes['constant_share'][cut] > 0).all()
  assert (dead['alive_share'] + dead['static_rate'] <= 1 + 1e-6).all()
  assert (look(variables['params'])[0]['static_rate'] == 0).all()
