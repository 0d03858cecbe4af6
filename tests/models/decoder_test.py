"""The decoder: published sizes, parity with PyTorch, causality, cache, low rank."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import c4, methods
from elas_jax.config.parsing import parse
from elas_jax.models.decoder import Decoder, empty_cache
from elas_jax.run.state import abstract_variables, parameter_count
from elas_jax.systems.activations.relu2 import Relu2
from elas_jax.systems.feed_forwards.glu import GLU
from elas_jax.systems.feed_forwards.mlp import MLP
from elas_jax.systems.kinds import name_of
from elas_jax.systems.linears import LINEARS
from tests.conftest import thinned
from tests.programs import init_variables, jit_logits, logits_of


@pytest.mark.parametrize('given, expected', [(0.0, 0.02), (0.3, 0.3)])
def test_the_embedding_starts_at_its_own_deviation(make_config, given, expected):
  config = make_config(**{'model.embedding_std': given, 'model.width': 64})
  params = init_variables(config)['params']
  assert np.std(params['embedding']) == pytest.approx(expected, rel=0.05)
  assert np.std(params['head']) == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize(
  'size, full, low_rank',
  thinned(
    [
      ('60m', 58.1, 42.8),
      ('130m', 134.1, 94.0),
      ('350m', 368.0, 185.2),
      ('1b', 1339.1, 609.3),
    ],
    ('60m', 58.1, 42.8),
  ),
)
def test_parameter_counts_are_the_published_ones(size, full, low_rank):
  published = dict.fromkeys(('full', 'galore'), full)
  published |= dict.fromkeys(('low_rank', 'loro', 'cola', 'cola_m'), low_rank)
  for method in methods.METHODS:
    config = parse(c4.get_config(f'{size},{method}'))
    count = parameter_count(abstract_variables(config)['params'])
    assert count == counted(config.model), (size, method)
    if method in published:
      assert abs(count / 1e6 - published[method]) < 0.051, (size, method, count)


def counted(model):
  """Parameters by arithmetic on the sizes of the seven, or six, maps of a layer."""
  D, F, kind = model.width, model.feed_forward_width, model.linear
  R = getattr(kind, 'rank', None)
  gates = 2 if isinstance(model.feed_forward, GLU) else 1
  maps = [(D, D)] * 4 + [(D, F)] * gates + [(F, D)]
  of_map = {
    'dense': lambda i, o: i * o,
    'low_rank': lambda i, o: R * (i + o),
    'cola': lambda i, o: R * (i + o),
    'lora': lambda i, o: i * o + R * (i + o),
    'sltrain': lambda i, o: R * (i + o) + int(kind.sparse_share * i * o),
    'lost': lambda i, o: R * (i + o) + int(kind.sparse_share * i) * o,
  }[name_of(LINEARS, kind)]
  layer = sum(of_map(i, o) for i, o in maps) + 2 * D
  return model.layers * layer + 2 * model.vocab_size * D + D


def test_logits_equal_recorded_pytorch(make_config, golden_model, golden):
  config = make_config(**golden_model)
  logits = logits_of(config, golden['weights'], golden['tokens'])
  np.testing.assert_allclose(logits, golden['logits'], rtol=2e-5, atol=2e-5)


@pytest.mark.conformance
@pytest.mark.parametrize(
  'overrides',
  [
    {},
    {'model.linear': 'dense', 'model.feed_forward': 'glu', 'model.attention': 'mqa'},
    {'data.sequence_length': 200},  # several blocks of attention
  ],
)
def test_no_gradient_from_later_tokens(make_config, overrides):
  config = make_config(**overrides)
  L = config.data.sequence_length
  params = init_variables(config)['params']
  tokens = jnp.arange(L)[None] * 7 % 257
  position = L // 2

  def logit_sum(embedding_LxD):
    # Each position gets an embedding of its own, so that it has its own gradient.
    own = params | {'embedding': embedding_LxD}
    model = dataclasses.replace(config.model, vocab_size=L)
    own['head'] = params['head'][:, :1] * jnp.ones((1, L))
    return logits_of(dataclasses.replace(config, model=model), own, jnp.arange(L)[None])[
      0, position
    ].sum()

  grads_LxD = jax.jit(jax.grad(logit_sum))(params['embedding'][tokens[0]])
  sizes_L = jnp.abs(grads_LxD).sum(axis=1)
  assert (sizes_L[position + 1 :] == 0).all()
  assert (sizes_L[: position + 1] > 0).all()


@pytest.mark.parametrize('mixer', thinned(['mha', 'mqa', 'ssqa', 'mla'], 'mqa'))
def test_cached_logits_equal_uncached(make_config, mixer):
  config = make_config(**{'model.attention': mixer})
  params = init_variables(config)['params']
  tokens_BxL = jax.random.randint(jax.random.key(1), (3, 20), 0, 257)
  whole = logits_of(config, params, tokens_BxL)
  cache = empty_cache(config.model, 3, 24)
  apply = jax.jit(Decoder(config.model).apply)
  parts, start = [], 0
  for length in (7, 1, 1, 5, 1, 5):
    piece = tokens_BxL[:, start : start + length]
    logits, cache = apply({'params': params}, piece, cache, start)
    parts.append(logits)
    start += length
  np.testing.assert_allclose(jnp.concatenate(parts, 1), whole, rtol=1e-5, atol=1e-5)


def test_low_rank_at_full_rank_from_svd_equals_dense(make_config):
  dense = make_config(**{'model.linear': 'dense'})
  low_rank = make_config(**{'model.linear.rank': 32})  # the full rank of every matrix

  def factorise(tree):
    if 'kernel' in tree:
      u, s, v = np.linalg.svd(np.asarray(tree['kernel'], np.float64), full_matrices=False)
      root = np.sqrt(s)
      a, b = u * root[:, None, :], v * root[:, :, None]
      return {'a': a.astype(np.float32), 'b': b.astype(np.float32)}
    return {k: factorise(v) if isinstance(v, dict) else v for k, v in tree.items()}

  dense_params = init_variables(dense)['params']
  low_rank_params = factorise(dense_params)
  shapes = lambda tree: jax.tree.map(jnp.shape, tree)
  assert shapes(low_rank_params) == shapes(abstract_variables(low_rank)['params'])
  tokens_BxL = jax.random.randint(jax.random.key(2), (2, 16), 0, 257)
  np.testing.assert_allclose(
    logits_of(low_rank, low_rank_params, tokens_BxL),
    logits_of(dense, dense_params, tokens_BxL),
    rtol=1e-4,
    atol=1e-5,
  )


@pytest.mark.parametrize(
  'size, feed_forward_width',
  [('60m', 2064), ('130m', 3072), ('350m', 4112), ('1b', 8192), ('7b', 16512)],
)
def test_squared_relu_width(size, feed_forward_width):
  config = parse(c4.get_config(f'{size},low_rank_relu2'))
  assert config.model.feed_forward == MLP(activation=Relu2())
  assert config.model.feed_forward_width == feed_forward_width


def test_initialisation(make_config):
  config = make_config(**{'model.width': 128, 'model.linear.rank': 32})
  params = init_variables(config)['params']
  assert abs(float(params['embedding'].std()) - 0.02) < 1e-3
  factors = params['layers']['attention']['query']
  expected = np.sqrt(2 / (128 + 32))  # Xavier normal of a (128, 32) matrix
  assert abs(float(factors['a'].std()) / expected - 1) < 0.05
  assert abs(float(factors['b'].std()) / expected - 1) < 0.05
  # Layers start different from one another.
  assert not np.allclose(factors['a'][0], factors['a'][1])


@pytest.mark.conformance
@pytest.mark.parametrize('remat', ['full', 'dots'])
def test_remat_and_unroll_change_nothing(make_config, remat):
  plain = make_config()
  other = make_config(**{'model.remat': remat, 'model.unroll': 2})
  params = init_variables(plain)['params']
  tokens_BxL = jax.random.randint(jax.random.key(3), (2, 16), 0, 257)

  def loss(config):
    return lambda params: jnp.square(logits_of(config, params, tokens_BxL)).mean()

  value, grads = jax.jit(jax.value_and_grad(loss(plain)))(params)
  other_value, other_grads = jax.jit(jax.value_and_grad(loss(other)))(params)
  np.testing.assert_allclose(value, other_value, rtol=1e-5)
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-7),
    grads,
    other_grads,
  )


def test_remat_full_saves_less(make_config):
  def saved_bytes(remat):
    config = make_config(**{'model.remat': remat})
    shapes = abstract_variables(config)['params']
    tokens_BxL = jax.ShapeDtypeStruct((4, 32), jnp.int32)

    def residuals(params, tokens_BxL):
      _, vjp = jax.vjp(lambda p: logits_of(config, p, tokens_BxL), params)
      return vjp

    saved = jax.eval_shape(residuals, shapes, tokens_BxL)
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(saved))

  assert saved_bytes('full') < 0.5 * saved_bytes('none')


def test_tied_head_uses_the_embedding(make_config):
  tied, untied = make_config(**{'model.tied_head': True}), make_config()
  params = init_variables(tied)['params']
  assert 'head' not in params
  tokens_BxL = jnp.arange(12)[None]
  same = params | {'head': params['embedding'].T}
  np.testing.assert_allclose(
    logits_of(tied, params, tokens_BxL),
    logits_of(untied, same, tokens_BxL),
    rtol=1e-5,
    atol=1e-7,
  )


def test_bf16_compute_gives_float32_logits_near_those_of_float32(make_config):
  config = make_config()
  half = make_config(**{'model.compute_dtype': 'bfloat16'})
  params = init_variables(config)['params']
  tokens_BxL = jax.random.randint(jax.random.key(4), (2, 16), 0, 257)
  logits = logits_of(half, params, tokens_BxL)
  assert logits.dtype == jnp.float32
  expected = logits_of(config, params, tokens_BxL)
  rms = lambda x: float(jnp.sqrt(jnp.mean(x * x)))
  # A few roundings of 2^-9 each; wrong arithmetic would be off by the whole.
  assert 1e-4 < rms(logits - expected) / rms(expected) < 0.02


@pytest.mark.parametrize('rule', thinned(['top2', 'mvue', 'soft_activations'], 'top2'))
def test_pruning_does_not_show_later_tokens(make_config, rule):
  """By exchange, not by gradient: a mask has none."""
  backward = 'exact' if rule == 'top2' else 'straight_through'
  config = make_config(
    **{
      'model.feed_forward': 'relu2_two_four',
      'model.feed_forward.recipe': rule,
      'model.feed_forward.recipe.backward': backward,
    }
  )
  variables = init_variables(config)
  tokens = np.random.default_rng(0).integers(0, 257, (1, 16)).astype(np.int32)
  other = tokens.copy()
  other[0, -1] = (tokens[0, -1] + 1) % 257
  rngs = {'noise': jax.random.key(1)}
  apply = lambda x: jit_logits(config.model, variables, jnp.asarray(x), rngs)
  one, two = apply(tokens), apply(other)
  np.testing.assert_array_equal(one[:, :-1], two[:, :-1])
  assert np.abs(one[:, -1] - two[:, -1]).max() > 1e-3
