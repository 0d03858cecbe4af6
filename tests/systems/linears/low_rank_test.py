"""The two starts of low-rank factors, and the ranks that there can be."""

import types

import numpy as np
import pytest

from elas_jax.common.errors import UserError
from elas_jax.systems.linears.cola import CoLA
from elas_jax.systems.linears.lora import LoRA
from elas_jax.systems.linears.lost import LOST
from elas_jax.systems.linears.low_rank import LowRank
from elas_jax.systems.linears.sltrain import SLTrain
from elas_jax.systems.mixers import MIXERS
from tests.conformance.hosts import language
from tests.systems.linears.layers import I, O, R, config_of, layer_of, normal, start, wide


def factors(rank, features=O, inputs=I, **fields):
  kind = LowRank(rank, 'spectral')
  p = wide(start(layer_of(kind, features, **fields), normal(2, inputs))['params'])
  return p['a'], p['b']


@pytest.mark.parametrize(
  'fields, std',
  [
    ({'init_std': 0.02}, 0.02),
    ({'init': 'lecun'}, (3 * I) ** -0.5),
    ({'init': 'he'}, (2 / I) ** 0.5),
  ],
)
def test_spectral_factors_are_the_best_approximation_and_balanced(fields, std):
  # The same key gives the same dense start, of which the full rank keeps everything.
  a, b = factors(O, **fields)
  w = a @ b
  assert abs(w.std() / std - 1) < 0.1
  u, s, vt = np.linalg.svd(w)
  a, b = factors(R, **fields)
  np.testing.assert_allclose(a @ b, u[:, :R] * s[:R] @ vt[:R], atol=2e-5 * std)
  np.testing.assert_allclose(a.T @ a, b @ b.T, atol=1e-5 * s[0])
  np.testing.assert_allclose(np.diag(a.T @ a), s[:R], rtol=1e-4)


def test_xavier_scales():
  p = start(layer_of(LowRank(64), 200), normal(2, 300))['params']
  np.testing.assert_allclose(np.std(p['a']), np.sqrt(2 / 364), rtol=0.03)
  np.testing.assert_allclose(np.std(p['b']), np.sqrt(2 / 264), rtol=0.03)


def test_kernels_are_its_factors():
  kind = LowRank(R)
  layer = layer_of(kind)
  variables = start(layer, normal(2, I))
  a, b = layer.apply(variables, I, method='kernels')
  assert kind.kernels() == 2 and kind.factors()
  np.testing.assert_array_equal(a, variables['params']['a'])
  np.testing.assert_array_equal(b, variables['params']['b'])


@pytest.mark.parametrize('kind', [LowRank, CoLA, LoRA, SLTrain, LOST])
def test_ranks_that_cannot_be_are_refused_by_name(kind):
  refused = lambda rank, config, message: pytest.raises(UserError, match=message)
  check = lambda rank, config: kind(rank=rank).check('model.linear', config)
  with refused(0, config_of(), 'model.linear.rank=0: must be at least 1'):
    check(0, config_of())
  message = (
    f'model.linear.rank={O + 1}: must be at most {O}, the smaller of model.width and '
    'model.feed_forward_width$'
  )
  with refused(O + 1, config_of(), message):
    check(O + 1, config_of())
  check(O, config_of())


@pytest.mark.parametrize(
  'widths, said',
  [
    ({'model.width': 8}, 'the model.width$'),
    (
      {'model.width': 9, 'model.outputs': 8, 'the entries': 30},
      'the smallest of model.width, model.outputs and the entries$',
    ),
  ],
)
def test_refusals_name_all_widths(widths, said):
  config = types.SimpleNamespace(model=types.SimpleNamespace(width=9, widths=widths))
  with pytest.raises(UserError, match=f'rank=9: must be at most 8, {said}'):
    LowRank(9).check('model.linear', config)


@pytest.mark.parametrize('kind', [LowRank(R), CoLA(R)])
def test_the_short_side_of_every_array_is_the_rank(kind):
  params = start(layer_of(kind), normal(2, I))['params']
  assert {min(p.shape) for p in params.values()} == {R}
  assert kind.short() == ('model.linear.rank', R)


@pytest.mark.parametrize('kind', [LowRank(3, 'spectral'), LOST(3)])
def test_a_start_by_svd_needs_the_rank_of_every_map(kind):
  """A key of one head of two entries has rank 2; two factors may have more all the same."""
  config = language(linear=kind, attention=MIXERS['mqa'](heads=4))
  said = (
    "rank=3: must be at most 2 to start as an SVD, the width of the map 'attention/key'"
  )
  with pytest.raises(UserError, match=said):
    kind.check('model.linear', config)
  kind.check('model.linear', language(linear=kind))
  LowRank(3).check('model.linear', config)
