"""Every activation against NumPy's formula in float64, gradients, dropout, gates, hosts."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elas_jax.common.errors import UserError
from elas_jax.config.checks import check
from elas_jax.models import layout
from elas_jax.models.classifier import Network
from elas_jax.models.decoder import Decoder
from elas_jax.run.state import abstract_variables, init_variables
from elas_jax.systems.activations import ACTIVATIONS
from elas_jax.systems.architectures import ARCHITECTURES
from elas_jax.systems.feed_forwards import FEED_FORWARDS
from elas_jax.systems.kinds import Parts, axes, no_decay, room
from elas_jax.systems.linears import LINEARS
from elas_jax.tasks import task_of
from tests.conformance.hosts import batch, language, network
from tests.conformance.truths import drawn, float64, of_linear
from tests.systems.sections import decoder

PARTS = decoder().parts
X = np.concatenate([np.linspace(-8, 8, 161), [-0.0]]).astype(np.float32)
SCALE, ALPHA = 1.0507009873554805, 1.6732632423543772
sigmoid = lambda x: (1 + math.tanh(x / 2)) / 2
# Written apart from the rooms, with other forms of the formulas where there are some; of
# the kind and of its parameters.
EXPECTED = {
  'none': lambda x, k, p: x,
  'relu': lambda x, k, p: (x + abs(x)) / 2,
  'relu2': lambda x, k, p: x * (x + abs(x)) / 2,
  'gelu': lambda x, k, p: x * math.erfc(-x / 2**0.5) / 2,
  'silu': lambda x, k, p: x * sigmoid(x),
  'softplus': lambda x, k, p: math.log1p(math.exp(x)),
  'sigmoid': lambda x, k, p: sigmoid(x),
  'leaky_relu': lambda x, k, p: max(x, 0.01 * x),
  'elu': lambda x, k, p: x if x > 0 else k.alpha * (math.exp(x) - 1),
  'selu': lambda x, k, p: SCALE * (x if x > 0 else ALPHA * (math.exp(x) - 1)),
  'tanh': lambda x, k, p: (math.exp(2 * x) - 1) / (math.exp(2 * x) + 1),
  'swish': lambda x, k, p: x * sigmoid(p.get('beta', k.beta) * x),
  'crrelu': lambda x, k, p: max(x, 0) + p['epsilon'] * x / math.sqrt(math.exp(x * x)),
  'fatrelu': lambda x, k, p: 0 if x < k.threshold else x,
  'shifted_relu': lambda x, k, p: (x - k.shift + abs(x - k.shift)) / 2,
  'poly_relu': lambda x, k, p: np.polyval(p['a'][::-1], max(x, 0)),
  'sg_blend': lambda x, k, p: (
    x * sigmoid(1.702 * x)
    + sigmoid(p['alpha']) * x * (sigmoid(p['beta'] * x) - sigmoid(1.702 * x))
    - sigmoid(p['alpha']) * p['gamma']
  ),
  'dra': lambda x, k, p: (
    x
    + p['a'] * (1 - math.cos(2 * x / p['b'])) / 2
    + p['c'] * math.cos(-p['b'] * x)
    + p['d'] * math.tanh(p['b'] * x)
  ),
}
ALL = [(name, case) for name, kind in ACTIVATIONS.items() for case in room(kind).CASES]
# Those that are not here are held to the truth of their own rooms, by tests/conformance.
CASES = [(name, case) for name, case in ALL if name in EXPECTED]


def applied(case, x):
  """(variables, the function of them and of x); no parameter is zero."""
  made = case.make(PARTS, None)
  if not hasattr(made, 'init'):
    return {}, lambda p, x: made(x)
  return drawn(made, x)['params'], lambda p, x: made.apply({'params': p}, x)


@pytest.mark.parametrize('name, case', CASES)
def test_an_activation_and_its_truth_equal_the_formula(name, case):
  case.check('model.activation', None)
  p, function = applied(case, jnp.asarray(X))
  wide = float64(p)
  exact = [EXPECTED[name](x, case, wide) for x in X.astype(np.float64).tolist()]
  truth = room(case).truth(case, X.astype(np.float64), wide)
  # The tanh of an approximate GELU is known to be within 5e-4 of the exact one.
  approximate = getattr(case, 'approximate', False)
  np.testing.assert_allclose(truth, exact, rtol=1e-12, atol=5e-4 if approximate else 1e-13)
  assert not approximate or np.abs(truth - exact).max() > 1e-4
  y = function(p, jnp.asarray(X))
  assert y.dtype == jnp.float32
  np.testing.assert_allclose(y, truth, rtol=2e-5, atol=2e-6)
  assert function(p, jnp.bfloat16(X)).dtype == jnp.bfloat16


@pytest.mark.parametrize('case', room(ACTIVATIONS['poly_norm']).CASES)
def test_poly_norm_by_numbers(case):
  """Row by row, and the norms as the paper writes them: L2, times sqrt(F)."""
  x = np.random.default_rng(0).normal(size=(3, 5))
  a = np.random.default_rng(1).normal(size=case.order + 1)
  for row, y in zip(x, room(case).truth(case, x, {'a': a})):
    expected = a[0]
    for power in range(1, case.order + 1):
      length = math.hypot(*row**power, math.sqrt(5 * case.epsilon))
      expected = expected + a[power] * math.sqrt(5) * row**power / length
    np.testing.assert_allclose(y, expected, rtol=1e-12)


KINKS = 0, 0.01, 0.1, 0.5, 1.0  # of some activation


def slopes(function, x, step=1e-5):
  """Of a sum, by each entry of x, in float64."""
  found = np.zeros(x.shape)
  for place in np.ndindex(x.shape):
    up, down = x.copy(), x.copy()
    up[place] += step
    down[place] -= step
    found[place] = (function(up) - function(down)) / (2 * step)
  return found


@pytest.mark.parametrize('name, case', ALL)
def test_gradients_are_the_slopes_of_the_truth(name, case):
  """By x and by the parameters, away from kinks."""
  random = np.random.default_rng(2)
  x = random.normal(0, 2, size=40)
  away = [value for value in x if all(abs(value - kink) > 1e-3 for kink in KINKS)]
  x, weights = np.reshape(away[:24], (2, 12)), random.normal(size=(2, 12))
  p, function = applied(case, jnp.float32(x))
  loss = lambda p, x: (jnp.float32(weights) * function(p, x)).sum()
  of_p, of_x = jax.jit(jax.grad(loss, (0, 1)))(p, jnp.float32(x))
  wide = float64(p)
  true = lambda p, x: (weights * room(case).truth(case, x, p)).sum()
  expected = slopes(lambda x: true(wide, x), x)
  np.testing.assert_allclose(of_x, expected, rtol=1e-4, atol=1e-5)
  assert of_p.keys() == set(no_decay(case)) == axes(case).keys()
  for one, found in of_p.items():
    expected = slopes(lambda value, one=one: true(wide | {one: value}, x), wide[one])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert len(axes(case)[one]) == found.ndim


def test_poly_relu_contains_the_squared_relu():
  poly, square = ACTIVATIONS['poly_relu']().make(PARTS, None), ACTIVATIONS['relu2']()
  p = {'params': {'a': jnp.float32([0, 0, 1, 0])}}
  for ours, theirs in (
    (lambda x: poly.apply(p, x), square.make(PARTS, None)),
    (jax.grad(lambda x: poly.apply(p, x).sum()), lambda x: 2 * jnp.maximum(x, 0)),
  ):
    np.testing.assert_allclose(ours(jnp.asarray(X)), theirs(X), rtol=1e-6)


def test_published_starts():
  start = lambda name, **fields: (
    ACTIVATIONS[name](**fields).make(PARTS, None).init(jax.random.key(0), X)['params']
  )
  np.testing.assert_allclose(start('poly_relu')['a'], [0, 1 / 3, 1 / 3, 1 / 3], rtol=1e-6)
  np.testing.assert_allclose(start('poly_norm', order=2)['a'], [0, 0.5, 0.5])
  np.testing.assert_allclose(start('crrelu')['epsilon'], 0.01)
  assert start('sg_blend') == {'alpha': 0, 'beta': 1, 'gamma': 0}
  assert start('swish', trained=True) == {'beta': 1}
  made = ACTIVATIONS['dra']().make(PARTS, None)
  keys = jax.random.split(jax.random.key(0), 2000)
  numbers = jax.tree.leaves(jax.vmap(lambda key: made.init(key, X[:1]))(keys))
  assert len(numbers) == 4
  assert abs(np.mean(numbers)) < 0.05 and abs(np.std(numbers) - 1) < 0.05


# --- self-normalising networks ---


@pytest.mark.parametrize('dropout', [0.0, 0.1])
def test_selu_keeps_mean_and_variance_over_32_layers(dropout):
  """With weights of variance 1 / I, also with alpha dropout in training."""
  parts = Parts(512, 512, None, None, init='lecun_normal', train=True)
  dense, selu = LINEARS['dense'](), ACTIVATIONS['selu'](dropout=dropout)

  @jax.jit
  def moments():
    def layer(x, key):
      of_weights, of_noise = jax.random.split(key)
      h, _ = dense.make(512, parts, name=None).init_with_output(of_weights, x)
      made = selu.make(parts, None)
      y = made.apply({}, h, rngs={'noise': of_noise}) if dropout else made(h)
      return y, (y.mean(), y.var())

    x = jax.random.normal(jax.random.key(0), (512, 512))
    return jax.lax.scan(layer, x, jax.random.split(jax.random.key(1), 32))[1]

  mean, variance = moments()
  assert np.abs(mean).max() < 0.02 and np.abs(variance - 1).max() < 0.06


@pytest.mark.parametrize('convolution', [False, True])
def test_lecun_normal_has_variance_one_over_the_inputs(convolution):
  """Where a normal that is cut off at two deviations would have 0.77 of it."""
  parts, dense = Parts(300, 300, None, None, init='lecun_normal'), LINEARS['dense']()
  if convolution:
    module, x = dense.convolve(128, (3, 3), 1, parts, name=None), jnp.zeros((1, 4, 4, 64))
  else:
    module, x = dense.make(300, parts, name=None), jnp.zeros((1, 300))
  kernel = module.init(jax.random.key(0), x)['params']['kernel']
  assert abs(kernel.var() * kernel[..., 0].size - 1) < 0.02


def test_alpha_dropout_drops_its_share():
  parts = dataclasses.replace(PARTS, train=True)
  made, x = ACTIVATIONS['selu'](dropout=0.25).make(parts, None), jnp.ones((100, 100))
  key = {'noise': jax.random.key(0)}
  y, slope = jax.value_and_grad(lambda x: made.apply({}, x, rngs=key).sum())(x)
  values, counts = np.unique(np.asarray(made.apply({}, x, rngs=key)), return_counts=True)
  low, kept = -SCALE * ALPHA, 0.75
  a = (kept + low**2 * kept * 0.25) ** -0.5
  b = -a * 0.25 * low
  np.testing.assert_allclose(values, [a * low + b, a * SCALE + b], rtol=1e-5)
  assert abs(counts[0] / 10_000 - 0.25) < 0.02
  np.testing.assert_allclose(np.unique(slope), [0, a * SCALE], rtol=1e-5)


def host(activation, place):
  """A config with it between the layers of a network, in a decoder, or in a KAN of it."""
  if place == 'network':
    return network(activation=activation, depth=2)
  if place == 'kan':
    return network(linear=LINEARS['kan_fast'](activation=activation))
  return language(feed_forward=FEED_FORWARDS[place](activation=activation))


@pytest.mark.parametrize('place', ['network', 'mlp', 'glu', 'kan'])
def test_dropout_draws_in_training_alone(place):
  dropped = host(ACTIVATIONS['selu'](dropout=0.3), place)
  plain = host(ACTIVATIONS['selu'](), place)
  rows, variables = batch(dropped), init_variables(dropped)

  @functools.partial(jax.jit, static_argnums=(0, 2))
  def outputs(config, key, train):
    return task_of(config).forward(config, variables, rows, key, train).outputs

  one, two = jax.random.split(jax.random.key(0))
  expected = outputs(plain, one, False)
  np.testing.assert_array_equal(outputs(plain, one, True), expected)
  np.testing.assert_array_equal(outputs(dropped, one, False), expected)
  first, again, second = (outputs(dropped, key, True) for key in (one, one, two))
  np.testing.assert_array_equal(first, again)
  assert np.abs(first - second).max() > 1e-3 and np.abs(first - expected).max() > 1e-3


def test_without_dropout_a_decoder_in_training_is_the_same_program():
  config, tokens = host(ACTIVATIONS['selu'](), 'mlp'), jnp.zeros((1, 8), jnp.int32)

  def program(train):
    apply = functools.partial(Decoder(config.model).apply, train=train)
    return str(jax.make_jaxpr(apply)(abstract_variables(config), tokens))

  assert program(True) == program(False)


@pytest.mark.parametrize('value', [-0.1, 1.0])
def test_a_dropout_that_drops_all_is_refused(value):
  with pytest.raises(UserError) as error:
    check(host(ACTIVATIONS['selu'](dropout=value), 'network'))
  assert str(error.value) == (
    f'model.activation.dropout={value}: must be at least 0 and below 1'
  )


# --- where they stand ---

KANS = 'kan_bspline', 'kan_bsrbf', 'kan_fast', 'kan_af', 'kan_selectable'


@pytest.mark.parametrize('name', KANS)
def test_kans_take_activations_with_parameters(name):
  pool = {'pool': 'fast'} if name == 'kan_selectable' else {}
  kind = LINEARS[name](activation=ACTIVATIONS['poly_relu'](), **pool)
  of_linear(kind)
  paths = [path for path in axes(kind) if path.endswith('activation/a')]
  assert paths and set(paths) <= set(no_decay(kind))
  layout.axes(network(linear=kind).model)


@pytest.mark.parametrize('name', KANS)
def test_kans_refuse_what_is_no_function_of_single_numbers(name):
  config = network(linear=LINEARS[name](activation=ACTIVATIONS['poly_norm']()))
  with pytest.raises(UserError) as error:
    check(config)
  said = str(error.value)
  assert said.startswith(
    "model.linear.activation='poly_norm': must be a function of single numbers, one of "
  )
  assert "'poly_relu'" in said and said.count('poly_norm') == 1 and '\n' not in said


def test_a_convnet_with_trained_activations():
  """Gradients reach those of each layer; poly_norm goes over the channels."""
  made = lambda name: network(
    activation=ACTIVATIONS[name](), architecture=ARCHITECTURES['convnet'](), depth=2
  )
  for name in ('poly_norm', 'dra'):
    config = made(name)
    check(config)
    variables = init_variables(config)
    x = jax.random.normal(jax.random.key(1), (2, 8, 8, 1))
    loss = lambda p, config=config, x=x: jnp.square(
      Network(config.model).apply({'params': p}, x) - 1
    ).sum()
    slopes = jax.jit(jax.grad(loss))(variables['params'])['network']
    for layer in ('activation_0', 'activation_1'):
      leaves = jax.tree.leaves(slopes[layer])
      assert leaves and all(np.isfinite(x).all() and np.abs(x).max() > 0 for x in leaves)


def test_numbers_of_stacked_layers_are_apart():
  """Each layer of a decoder has its own, and none is decayed."""
  numbers = lambda variables: jax.tree.leaves(
    variables['params']['layers']['feed_forward']['activation']
  )
  for case in {name: case for name, case in ALL if no_decay(case)}.values():
    config = host(case, 'glu')
    found = numbers(abstract_variables(config))
    assert {len(leaf.shape) for leaf in found} <= {1, 2}
    assert {leaf.shape[0] for leaf in found} == {2}
    below = {f'layers/feed_forward/activation/{path}' for path in no_decay(case)}
    assert below <= layout.no_decay(config.model)
  config = host(ACTIVATIONS['dra'](), 'glu')
  found = numbers(jax.jit(lambda: init_variables(config))())
  assert len(found) == 4 and all(leaf[0] != leaf[1] for leaf in found)


# --- gates and keys ---


@pytest.mark.parametrize('case', [case for _, case in CASES if hasattr(case, 'gate')])
def test_a_gate_multiplies(case):
  gate, up = jnp.asarray(X), jnp.asarray(np.cos(X))
  expected = room(case).truth(case, X.astype(np.float64), {}) * np.cos(X.astype(np.float64))
  np.testing.assert_allclose(case.gate(gate, up), expected, rtol=2e-5, atol=2e-6)


def test_the_gate_of_silu_keeps_two_arrays():
  backward = jax.vjp(ACTIVATIONS['silu']().gate, jnp.asarray(X), jnp.asarray(X))[1]
  assert [leaf.shape for leaf in jax.tree.leaves(backward)] == [X.shape, X.shape]


@pytest.mark.parametrize('case', [case for _, case in ALL if no_decay(case)])
def test_trained_activations_keep_their_input(case):
  """And their numbers, for the backward pass."""
  x = jnp.bfloat16(X.reshape(2, 81))
  p, function = applied(case, x)
  backward = jax.vjp(function, p, x)[1]
  large = [leaf for leaf in jax.tree.leaves(backward) if leaf.ndim == 2]
  assert [(leaf.shape, leaf.dtype) for leaf in large] == [((2, 81), jnp.bfloat16)]


def test_kinds_can_be_keys():
  """They are static arguments of compiled functions."""
  for _, case in ALL:
    assert hash(case) == hash(dataclasses.replace(case))
