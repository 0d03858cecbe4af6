"""Query heads that share keys and values: against PyTorch, NumPy, and by their sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elas_jax.systems.mixers import MIXERS
from elas_jax.systems.positions import POSITIONS
from tests.systems.mixers.recorded import assert_as_recorded
from tests.systems.mixers_test import applied, of

GQA, NONE = MIXERS['gqa'], POSITIONS['none']()


@pytest.mark.parametrize(
  'name, kind', [('gqa', GQA(4, 2)), ('gqa_qk_norm', GQA(4, 2, qk_norm=True))]
)
def test_outputs_equal_recorded_pytorch(name, kind):
  assert_as_recorded(name, kind)


def numpy_heads(x, p, K, queries, groups):
  """The paper's formula by matrices: heads of keys and values are repeated to H_q."""
  B, L, _ = x.shape
  heads = lambda name, count: (x @ p[name]['kernel']).reshape(B, L, count, K)
  repeated = lambda z: np.repeat(z, queries // groups, axis=2)
  q, k, v = heads('query', queries), heads('key', groups), heads('value', groups)
  s = np.einsum('blhk,bshk->bhls', q, repeated(k)) / np.sqrt(K)
  s = np.where(np.tril(np.ones((L, L), bool)), s, -np.inf)
  weights = np.exp(s) / np.exp(s).sum(-1, keepdims=True)
  y = np.einsum('bhls,bshk->blhk', weights, repeated(v))
  return y.reshape(B, L, -1) @ p['output']['kernel']


# Heads of queries and of keys at D = 32 and 16 heads, as in the paper's table 1.
HEADS = {
  'mqa': (16, 1),
  'gqa': (16, 4),
  'sqa': (8, 4),
  'ssqa': (8, 8),
  'xsqa': (4, 4),
  'xsmqa': (4, 1),
}


@pytest.mark.parametrize('name', HEADS)
def test_variants_have_the_heads_of_the_papers_table(name):
  queries, groups = HEADS[name]
  kind = MIXERS[name](heads=16)
  model = of(kind, width=32).model
  K, parts = 2, model.parts
  maps = {x: (one.inputs, one.outputs) for x, one in kind.maps(parts).items()}
  inner = queries * K
  assert maps['query'] == (32, inner) and maps['output'] == (inner, 32)
  assert maps['key'] == maps['value'] == (32, groups * K)
  state = jax.eval_shape(lambda: kind.empty_state(parts, 3, 7))
  assert {x.shape for x in state.values()} == {(3, groups, 7, K)}
  # Both products, of 2 FLOPs for each of 100 keys, forward and twice backward.
  assert kind.flops(parts, 100) == 3 * 2 * 2 * 100 * inner


@pytest.mark.parametrize('name', ['mqa', 'sqa', 'xsmqa'])
def test_variants_equal_numpy(name):
  kind = MIXERS[name](heads=16)
  model = of(kind, width=32, position=NONE).model
  x = np.random.default_rng(0).normal(size=(2, 6, 32)).astype(np.float32)
  variables, (y, _) = applied(kind, model, x)
  p = jax.tree.map(lambda w: 0.2 * np.asarray(w, np.float64), variables['params'])
  _, (y, _) = applied(kind, model, x, variables={'params': jax.tree.map(jnp.float32, p)})
  expected = numpy_heads(np.float64(x), p, 2, *HEADS[name])
  np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
