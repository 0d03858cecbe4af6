"""Architectures: shapes, what lies where, what they refuse; a stack against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elas_jax.common import paths
from elas_jax.common.errors import UserError
from elas_jax.models.classifier import Network
from elas_jax.systems.activations import ACTIVATIONS
from elas_jax.systems.architectures import ARCHITECTURES
from elas_jax.systems.kinds import room
from elas_jax.systems.linears import LINEARS
from elas_jax.systems.norms import NORMS
from tests.conftest import thinned
from tests.systems.sections import classifier, config

NONE = ACTIVATIONS['none']()
ALL = [(name, case) for name, kind in ARCHITECTURES.items() for case in room(kind).CASES]
LAST = dict(ALL).items()  # of each


@pytest.mark.parametrize('name, kind', thinned(ALL, *LAST))
def test_outputs_and_gradients_of_every_parameter(name, kind):
  batch = NORMS['batch' if name in ('convnet', 'resnet') else 'layer']()
  activation = {'activation': ACTIVATIONS['none']()} if name == 'vit' else {}
  model = classifier(kind, norm=batch, depth=1, **activation)
  kind.check('model.architecture', config(model))
  x = jax.random.normal(jax.random.key(1), (3, 8, 8, 1))
  network = Network(model)
  variables = jax.jit(network.init)(jax.random.key(0), x)

  def loss(params):
    y, _ = network.apply(variables | {'params': params}, x, True, mutable=['buffers'])
    return jnp.square(y - 1).sum(), y

  grads, y = jax.jit(jax.grad(loss, has_aux=True))(variables['params'])
  assert y.shape == (3, 3)
  for path, grad in jax.tree_util.tree_leaves_with_path(grads):
    where = jax.tree_util.keystr(path, simple=True, separator='/')
    # Some biases cannot matter: those of keys in a softmax, those before a batch norm.
    assert jnp.abs(grad).max() > 0 or where.endswith('bias'), where


def test_stack_is_that_of_numpy():
  model = classifier(norm=NORMS['layer'](), activation=ACTIVATIONS['relu']())
  x = np.random.default_rng(0).normal(size=(4, 8, 8, 1)).astype(np.float32)
  variables = Network(model).init(jax.random.key(0), x)
  p = jax.tree.map(lambda v: np.asarray(v, np.float64), variables['params']['network'])

  def norm(x):
    return (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)

  h = np.float64(x).reshape(4, 64)
  for layer in ('layer_0', 'layer_1'):
    h = np.maximum(norm(h) @ p[layer]['kernel'] + p[layer]['bias'], 0)
  expected = norm(h) @ p['head']['kernel'] + p['head']['bias']
  np.testing.assert_allclose(
    Network(model).apply(variables, x), expected, rtol=1e-4, atol=1e-5
  )


def test_convnet_of_sequences_is_that_of_numpy():
  """Kernels of 3 along a sequence; the second layer goes on by 2."""
  model = classifier(
    ARCHITECTURES['convnet'](), norm=NORMS['none'](), input_shape=(7, 1, 2)
  )
  x = np.random.default_rng(0).normal(size=(4, 7, 1, 2)).astype(np.float32)
  variables = Network(model).init(jax.random.key(0), x)
  p = jax.tree.map(lambda v: np.asarray(v, np.float64), variables['params']['network'])
  h = np.float64(x)[:, :, 0]
  for layer, stride in (('layer_0', 1), ('layer_1', 2)):
    padded = np.pad(h, ((0, 0), (1, 1), (0, 0)))
    starts = range(0, h.shape[1], stride)
    kernel, bias = p[layer]['kernel'][:, 0], p[layer]['bias']
    h = np.stack(
      [np.einsum('bki,kio->bo', padded[:, s : s + 3], kernel) for s in starts], 1
    )
    h = (h + bias) / (1 + np.exp(-(h + bias)))
  expected = h.mean(1) @ p['head']['kernel'] + p['head']['bias']
  np.testing.assert_allclose(
    Network(model).apply(variables, x), expected, rtol=1e-4, atol=1e-5
  )


@pytest.mark.parametrize(
  'name, linear, expected',
  [
    ('convnet', 'quadratic', {'layer_0/kernel_r': (3, 1, 1, 8)}),
    ('convnet', 'kan_chebyshev', {'layer_0/kan/coefficients': (3, 4, 8)}),
    ('resnet', 'dense', {'stem/kernel': (3, 1, 1, 8), 'first_0_0/kernel': (3, 1, 8, 8)}),
    ('vit', 'dense', {'patches/kernel': (4, 1, 1, 8), 'position/table': (10, 8)}),
  ],
)
def test_kernels_and_patches_of_sequences_have_one_side(name, linear, expected):
  fields = {'activation': NONE} if name == 'vit' else {}
  kind = ARCHITECTURES[name]()
  model = classifier(kind, LINEARS[linear](), input_shape=(40, 1, 1), depth=1, **fields)
  kind.check('model.architecture', config(model))
  network, x = Network(model), jax.ShapeDtypeStruct((2, 40, 1, 1), jnp.float32)
  params = jax.eval_shape(network.init, jax.random.key(0), x)['params']['network']
  shapes = dict(zip(paths.names(params), (p.shape for p in jax.tree.leaves(params))))
  assert {path: shapes[path] for path in expected} == expected


def test_first_map_of_a_transformers_feed_forward_is_told_so():
  rational = LINEARS['rational'](groups=2)
  vit = ARCHITECTURES['vit'](2, linear_in='feed_forward')
  model = classifier(vit, rational, norm=NORMS['layer'](), activation=NONE, depth=1)
  x = jnp.zeros((1, 8, 8, 1))
  params = Network(model).init(jax.random.key(0), x)['params']['network']
  layers = params['layers']['feed_forward']
  identity = [0, 1, 0, 0, 0, 0]
  numerators = {
    name: np.array(layers[name]['rational']['numerator'][0, 0]) for name in ('up', 'down')
  }
  np.testing.assert_array_equal(numerators['up'], identity)
  assert not np.array_equal(numerators['down'], identity)
  # And attention is plain.
  assert set(params['layers']['attention']['query']) == {'kernel', 'bias'}


def test_widths():
  stack, vit = ARCHITECTURES['stack'](), ARCHITECTURES['vit']()
  entries = {'the entries of model.input_shape': 64}
  assert stack.input_widths(classifier()) == entries | {'model.width': 8}
  assert stack.input_widths(classifier(depth=0)) == entries
  assert stack.widths(classifier()) == entries | {'model.width': 8, 'model.outputs': 3}
  assert vit.widths(classifier(vit)) == {'model.width': 8, '4 model.width': 32}  # up, down


@pytest.mark.parametrize(
  'name, kind, fields, message',
  [
    ('stack', {}, {'depth': -1}, r'model.depth=-1: must be at least 0'),
    ('convnet', {}, {'depth': 0}, r'model.depth=0: must be at least 1'),
    (
      'resnet',
      {},
      {'input_shape': (64,)},
      r"model.architecture='resnet': needs images, model.input_shape of \(H, W, C\), not "
      r"\(64,\); 'stack' takes any row",
    ),
    (
      'convnet',
      {},
      {'linear': LINEARS['rational']()},
      r"model.linear='rational': must be one of 'dense', 'masked', 'quadratic'.* with "
      r"model.architecture='convnet'",
    ),
    (
      'vit',
      {},
      {'activation': ACTIVATIONS['relu']()},
      r"model.activation='relu': must be 'none' with model.architecture='vit'; that of its "
      r'feed-forward is model.architecture.feed_forward.activation',
    ),
    (
      'vit',
      {'patch': 3},
      {},
      r'architecture.patch=3: must divide a side of',
    ),
    ('vit', {'patch': 0}, {}, r'model.architecture.patch=0: must be at least 1'),
  ],
)
def test_refused(name, kind, fields, message):
  kind = ARCHITECTURES[name](**kind)
  with pytest.raises(UserError, match=message):
    kind.check('model.architecture', config(classifier(kind, **fields)))
