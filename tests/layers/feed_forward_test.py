"""Gated feed-forwards against NumPy from their own parameters."""

import jax
import numpy as np
import pytest

from elas_jax.layers.feed_forward import FEED_FORWARDS


@pytest.mark.parametrize(
  'name, combine',
  [
    ('swiglu', lambda gate, up: gate / (1 + np.exp(-gate)) * up),
    ('bilinear', lambda gate, up: gate * up),
  ],
)
def test_gated_feed_forward(make_config, name, combine):
  model = make_config(**{'model.linear': 'dense', 'model.feed_forward': name}).model
  x = np.random.default_rng(0).normal(size=(2, 3, model.width)).astype(np.float32)
  layer = FEED_FORWARDS[name](model)
  variables = layer.init(jax.random.key(0), x)
  w = {k: np.asarray(v['kernel'], np.float64) for k, v in variables['params'].items()}
  expected = combine(x @ w['gate'], x @ w['up']) @ w['down']
  np.testing.assert_allclose(layer.apply(variables, x), expected, rtol=1e-4, atol=1e-7)
