"""LOST's factors, columns and sparse weights, all from one dense start."""

import numpy as np
import pytest

from elas_jax.common.errors import UserError
from elas_jax.systems.linears.lost import LOST
from elas_jax.systems.linears.low_rank import LowRank
from tests.systems.linears.layers import I, O, R, config_of, layer_of, normal, start, wide


@pytest.mark.parametrize(
  'fields, std',
  [
    ({'init_std': 0.02}, 0.02),
    ({'init': 'lecun'}, (3 * I) ** -0.5),
    ({'init': 'he'}, (2 / I) ** 0.5),
  ],
)
def test_it_starts_from_one_dense_start(fields, std):
  x = normal(2, I)
  variables = start(layer_of(LOST(R, 0.3, 0.125), **fields), x)
  p, columns = wide(variables['params']), np.asarray(variables['buffers']['columns'])
  # The same key gives the same dense start, of which the full rank keeps everything.
  full = wide(start(layer_of(LowRank(O, 'spectral'), **fields), x)['params'])
  w = full['a'] @ full['b']
  assert abs(w.std() / std - 1) < 0.1
  u, s, vt = np.linalg.svd(w)
  close = lambda found, expected: np.testing.assert_allclose(
    found, expected, atol=3e-5 * s[0]
  )
  close(p['a'] @ p['b'], u[:, :R] * s[:R] @ vt[:R])
  # Balanced factors of orthogonal directions, in falling order.
  close(p['a'].T @ p['a'], np.diag(s[:R]))
  close(p['b'] @ p['b'].T, np.diag(s[:R]))
  # The columns are those where what A B leaves of W is largest; S is W's own part there,
  # not the remainder's.
  left = np.linalg.norm(w - u[:, :R] * s[:R] @ vt[:R], axis=1)
  assert len(columns) == I // 8
  assert columns.tolist() == np.argsort(-left)[: I // 8].tolist()
  close(p['sparse'], w[columns])


@pytest.mark.parametrize(
  'fields, message',
  [
    ({'gamma': 1.5}, r'model.linear.gamma=1.5: must be between 0 and 1'),
    ({'gamma': -0.5}, r'model.linear.gamma=-0.5: must be between 0 and 1'),
    ({'sparse_share': 1.0}, r'linear.sparse_share=1.0: must be above 0 and below 1'),
  ],
)
def test_what_cannot_be_is_refused_by_name(fields, message):
  with pytest.raises(UserError, match=message):
    LOST(R, **fields).check('model.linear', config_of())
