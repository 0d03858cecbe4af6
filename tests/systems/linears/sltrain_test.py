"""SLTrain's fixed support, its gradients, and what it refuses."""

import jax
import numpy as np
import pytest

from elas_jax.common.errors import UserError
from elas_jax.systems.linears.sltrain import SLTrain
from tests.systems.linears.layers import (
  I,
  O,
  R,
  config_of,
  layer_of,
  normal,
  randomised,
  start,
  wide,
)

KIND = SLTrain(R, 8.0, 0.125)
GOAL = normal(2, 5, O, seed=2)


def test_start():
  variables = start(layer_of(KIND), normal(2, 5, I))
  support = np.asarray(variables['buffers']['support'])
  assert len(support) == len(set(support.tolist())) == I * O // 8
  assert support.min() >= 0 and support.max() < I * O
  assert not variables['params']['b'].any()
  values = np.abs(variables['params']['values'])
  assert 0.9 * I**-0.5 < values.max() <= I**-0.5


def test_gradients_and_what_is_kept_for_them():
  x, layer = normal(2, 5, I), layer_of(KIND)
  variables = randomised(start(layer, x))
  loss = lambda params: (layer.apply(variables | {'params': params}, x) * GOAL).sum()
  found, p = jax.jit(jax.grad(loss))(variables['params']), wide(variables['params'])
  dw = np.float64(x).reshape(-1, I).T @ np.float64(GOAL).reshape(-1, O)
  expected = {'a': 2 * dw @ p['b'].T, 'b': 2 * p['a'].T @ dw}
  expected['values'] = dw.reshape(-1)[np.asarray(variables['buffers']['support'])]
  for name, value in expected.items():
    np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-3)
  # W is formed for the product and not kept.
  f = lambda v, x: jax.vjp(layer.apply, v, x)[1]
  kept = jax.tree.leaves(jax.eval_shape(f, variables, x))
  assert all(leaf.size != I * O for leaf in kept)


@pytest.mark.parametrize(
  'fields, widths, message',
  [
    ({'sparse_share': 0.0}, {}, r'linear.sparse_share=0.0: must be above 0 and below 1'),
    ({'sparse_share': 1.0}, {}, r'linear.sparse_share=1.0: must be above 0 and below 1'),
    (
      {},
      {'width': 2**16, 'hidden': 2**10},
      'model.width=65536, model.feed_forward_width=1024: a map has 4294967296 entries; '
      "must be at most 2147483647 with model.linear='sltrain', which numbers them",
    ),
    ({}, {'width': 2**10, 'hidden': 2**21}, 'a map has 2147483648 entries'),
  ],
)
def test_what_cannot_be_is_refused_by_name(fields, widths, message):
  with pytest.raises(UserError, match=message):
    SLTrain(R, **fields).check('model.linear', config_of(**widths))
