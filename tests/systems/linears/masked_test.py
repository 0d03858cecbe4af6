"""A masked map with a drawn mask against NumPy, and what training leaves alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elas_jax.models import layout
from elas_jax.run.state import create_state, init_variables
from elas_jax.run.step import jit_train_step
from elas_jax.systems.architectures import ARCHITECTURES
from elas_jax.systems.linears import LINEARS
from elas_jax.systems.linears.dense import Dense
from elas_jax.systems.linears.masked import Masked
from tests.conformance.hosts import batch, language, mesh_of, network, transformer
from tests.conftest import thinned
from tests.systems.linears.layers import I, O, layer_of, normal, parts_of, start


def with_mask(variables, seed=3):
  """Other numbers than at the start, and half of the weights gone."""
  random = np.random.default_rng(seed)
  draw = lambda p: jnp.asarray(random.normal(size=p.shape), p.dtype)
  mask = jnp.asarray(random.integers(0, 2, variables['buffers']['mask'].shape) > 0)
  params = jax.tree.map(draw, variables['params'])
  return {'params': params, 'buffers': {'mask': mask}}


def numbers(variables):
  p = variables['params'] | variables['buffers']
  return {name: np.asarray(x, np.float64) for name, x in p.items()}


def test_only_weights_of_the_mask_count():
  x = normal(5, I)
  layer = layer_of(Masked(), use_bias=True)
  variables = with_mask(start(layer, x))
  p = numbers(variables)
  expected = np.float64(x) @ np.where(p['mask'] > 0, p['kernel'], 0) + p['bias']
  np.testing.assert_allclose(layer.apply(variables, x), expected, rtol=1e-4, atol=1e-4)
  loss = lambda params: (layer.apply(variables | {'params': params}, x) ** 2).sum()
  slope = jax.grad(loss)(variables['params'])['kernel']
  assert not slope[p['mask'] == 0].any() and slope[p['mask'] > 0].all()


@pytest.mark.parametrize('stride', [1, 2])
def test_a_convolution_by_sums_over_pixels(stride):
  x = normal(2, 6, 4, 3)
  kind = Masked()
  layer = kind.convolve(5, (3, 3), stride, parts_of(kind, use_bias=True), name=None)
  variables = with_mask(start(layer, x))
  p = numbers(variables)
  w_3x3xIxO = np.where(p['mask'] > 0, p['kernel'], 0)
  padded = np.pad(np.float64(x), ((0, 0), (1, 1), (1, 1), (0, 0)))
  expected = p['bias'] + sum(
    padded[:, i : i + 6 : stride, j : j + 4 : stride] @ w_3x3xIxO[i, j]
    for i in range(3)
    for j in range(3)
  )
  np.testing.assert_allclose(layer.apply(variables, x), expected, rtol=1e-4, atol=1e-4)


HOSTS = {
  'decoder': language,
  'stack': network,
  'convnet': lambda linear: network(linear=linear, architecture=ARCHITECTURES['convnet']()),
  'resnet': lambda linear: network(linear=linear, architecture=ARCHITECTURES['resnet']()),
  'vit': lambda linear: transformer(linear=linear),
}


def started(config):
  return jax.jit(init_variables, static_argnums=0)(config)


@pytest.mark.parametrize('name', thinned(list(HOSTS), 'decoder', 'convnet'))
def test_it_starts_as_the_dense_model_of_the_seed(name):
  """Bit for bit, with all weights there: what is rewound after pruning finds its start."""
  dense, masked = (started(HOSTS[name](linear=x)) for x in (Dense(), Masked()))
  jax.tree.map(np.testing.assert_array_equal, masked['params'], dense['params'])
  added = jax.tree.leaves(masked['buffers'])
  assert added and all(mask.dtype == jnp.bool_ and mask.all() for mask in added)


def test_it_starts_as_the_dense_convolution_by_lecun():
  dense, masked = (
    started(network(linear=x, architecture=ARCHITECTURES['convnet'](), init='lecun_normal'))
    for x in (Dense(), Masked())
  )
  jax.tree.map(np.testing.assert_array_equal, masked['params'], dense['params'])
  (kernel,) = (x for x in jax.tree.leaves(masked['params']) if x.ndim == 4)
  assert abs(kernel.std() * (9 * kernel.shape[2]) ** 0.5 - 1) < 0.3  # not 2 ** 0.5


def test_what_is_pruned_stays_so_in_training():
  config = network(linear=Masked())
  state, mesh = create_state(config, mesh_of(config)), mesh_of(config)
  random = np.random.default_rng(0)
  masks = jax.tree.map(lambda m: random.integers(0, 2, m.shape) > 0, state.buffers)
  state = state.replace(buffers=jax.device_put(masks))
  before = np.asarray(state.params['network']['layer_0']['kernel'])
  rows = jax.tree.map(jnp.asarray, batch(config))
  with jax.set_mesh(mesh):
    state, _ = jit_train_step(config, mesh)(state, rows)
  jax.tree.map(np.testing.assert_array_equal, state.buffers, masks)
  mask = masks['network']['layer_0']['mask']
  moved = np.asarray(state.params['network']['layer_0']['kernel']) != before
  assert moved[mask].any()
  (left,) = layout.matrices(config.model, state.variables)['network/layer_0']
  assert not left[~mask].any() and left[mask].all()


def test_the_matrix_of_a_convolution_has_its_outputs_as_columns():
  config = HOSTS['convnet'](Masked())
  variables = started(config)
  (w,) = layout.matrices(config.model, variables)['network/layer_0']
  kernel = variables['params']['network']['layer_0']['kernel']
  np.testing.assert_array_equal(w, kernel.reshape(-1, kernel.shape[-1]))


def test_it_is_a_plain_product_with_what_is_left():
  x = normal(3, I)
  layer = layer_of(Masked(), init_std=0.02)
  variables = with_mask(start(layer, x))
  (w_IxO,) = layer.apply(variables, I, method='kernels')
  assert LINEARS['masked']().kernels() == 1 and w_IxO.shape == (I, O)
  p = numbers(variables)
  np.testing.assert_array_equal(w_IxO, p['kernel'] * p['mask'])
