"""The plain map against Flax's own, bit for bit, and where it starts."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from elas_jax.ops.linear import kaiming_uniform
from elas_jax.systems.linears.dense import Dense
from tests.systems.linears.layers import I, O, layer_of, normal, parts_of, start


def equal(ours, golden):
  jax.tree.map(np.testing.assert_array_equal, ours, golden)


@pytest.mark.parametrize('shape', [(5, I), (2, 3, I)])
@pytest.mark.parametrize(
  'fields, init',
  [
    ({'init': 'lecun', 'use_bias': True}, kaiming_uniform),
    ({'init': 'he', 'use_bias': False}, nn.initializers.he_normal()),
    ({'init_std': 0.02, 'init': 'he'}, nn.initializers.normal(0.02)),
  ],
)
def test_it_is_flax_dense_bit_for_bit(fields, init, shape):
  x = normal(*shape)
  found = []
  golden = nn.Dense(O, fields.get('use_bias', False), kernel_init=init)
  for layer in (layer_of(Dense(), **fields), golden):
    variables = start(layer, x)
    params = {name: p + 0.1 for name, p in variables['params'].items()}
    loss = lambda params, x, layer=layer: (layer.apply({'params': params}, x) ** 2).sum()
    results = jax.jit(jax.value_and_grad(loss, (0, 1)))(params, x)
    found.append((variables, jax.jit(layer.apply)({'params': params}, x), results))
  equal(*found)


def test_convolution_keeps_the_size_or_halves_it():
  x = normal(2, 6, 5, I)
  kind = Dense()
  for stride, size in ((1, (6, 5)), (2, (3, 3))):
    layer = kind.convolve(O, (3, 3), stride, parts_of(kind, use_bias=True), name=None)
    variables = start(layer, x)
    assert layer.apply(variables, x).shape == (2, *size, O)
    assert sorted(variables['params']) == ['bias', 'kernel']
  kernel = np.asarray(variables['params']['kernel'])
  np.testing.assert_allclose(kernel.std(), np.sqrt(2 / (9 * I)), rtol=0.05)


def test_kernels_are_what_it_multiplies_by():
  kind = Dense()
  layer, x = layer_of(kind, init_std=0.02), normal(3, I)
  variables = start(layer, x)
  kernels = layer.apply(variables, I, method='kernels')
  assert len(kernels) == kind.kernels() == 1
  equal(kernels[0], variables['params']['kernel'])
