"""The optimiser of a run: AdamW against NumPy, what is around it, decay by path."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import default, images
from elas_jax.common import paths
from elas_jax.common.errors import UserError
from elas_jax.config.overrides import choose
from elas_jax.config.parsing import parse
from elas_jax.run.optimizer import apply_updates, decay_factors, make_optimizer
from elas_jax.run.state import abstract_variables
from elas_jax.systems.linears.dense import Dense
from elas_jax.systems.optimizers import OPTIMIZERS

ADAMW = {
  'learning_rate': 0.01,
  'b1': 0.9,
  'b2': 0.95,
  'epsilon': 1e-6,
  'weight_decay': 0.1,
  'decay_rules': (('scale$', 0.0), ('half', 0.5), ('.*', 1.0)),
  'clip_norm': 1.0,
}


def config_of(kind='adamw', **fields):
  config = default.get_config()
  choose(config, 'optimizer', kind, **fields)
  choose(config, 'schedule', 'constant', warmup_steps=0)
  return parse(config)


FACTORS = {'matrix': 1.0, 'half': 0.5, 'norm/scale': 0.0}


def tree(seed):
  random = np.random.default_rng(seed)
  normal = lambda *shape: random.normal(size=shape).astype(np.float32)
  return {'matrix': normal(4, 3), 'half': normal(5), 'norm': {'scale': normal(3)}}


def test_adamw_equals_numpy():
  params, steps = tree(0), 5
  optimizer = make_optimizer(config_of(**ADAMW), params)
  state = optimizer.init(params)
  ours = params
  flat = lambda tree: dict(zip(paths.names(tree), jax.tree.leaves(tree)))
  p = {k: v.astype(np.float64) for k, v in flat(params).items()}
  m = {k: np.zeros_like(v) for k, v in p.items()}
  v = {k: np.zeros_like(v) for k, v in p.items()}
  for t in range(1, steps + 1):
    grads = tree(t)
    updates, state = optimizer.update(grads, state, ours)
    ours = apply_updates(ours, updates)
    g = {k: x.astype(np.float64) for k, x in flat(grads).items()}
    norm = np.sqrt(sum((x**2).sum() for x in g.values()))
    for k in p:
      x = g[k] / max(norm, 1.0)
      m[k] = 0.9 * m[k] + 0.1 * x
      v[k] = 0.95 * v[k] + 0.05 * x * x
      step = m[k] / (1 - 0.9**t) / (np.sqrt(v[k] / (1 - 0.95**t)) + 1e-6)
      p[k] = p[k] - 0.01 * (step + 0.1 * FACTORS[k] * p[k])
  for k, x in flat(ours).items():
    np.testing.assert_allclose(x, p[k], rtol=2e-5, atol=1e-6, err_msg=k)


def test_bf16_parameters_have_float32_moments():
  params = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), tree(0))
  optimizer = make_optimizer(config_of(**ADAMW), params)
  state = optimizer.init(params)
  updates, state = optimizer.update(params, state, params)
  arrays = [x for x in jax.tree.leaves((state, updates)) if x.ndim]
  assert len(arrays) == 9
  assert all(x.dtype == jnp.float32 for x in arrays)
  new = apply_updates(params, updates)
  assert all(x.dtype == jnp.bfloat16 for x in jax.tree.leaves(new))


@dataclasses.dataclass(frozen=True)
class Around(Dense):
  """Makes gradients ten times and updates three times as large."""

  __module__ = Dense.__module__  # with the parameters of that

  def around_clipping(self, inner):
    return optax.chain(optax.scale(10.0), inner)

  def around_steps(self, inner, seed):
    assert seed == 7
    return optax.chain(inner, optax.scale(3.0))

  def extra(self):
    return [optax.scale(2.0)]


def test_what_the_linear_maps_put_around_it():
  sgd = {'learning_rate': 0.01, 'momentum': 0.0, 'weight_decay': 0.0, 'clip_norm': 1.0}
  config = dataclasses.replace(config_of('sgd', **sgd), seed=7)
  params = {'x': jnp.zeros(2)}
  model = dataclasses.replace(config.model, linear=Around())
  optimizer = make_optimizer(dataclasses.replace(config, model=model), params)
  given = {'x': jnp.array([0.3, 0.4])}  # of norm 0.5, then 5, then 1
  updates, _ = optimizer.update(given, optimizer.init(params), params)
  expected = -0.01 * np.array([0.6, 0.8]) * 2 * 3
  np.testing.assert_allclose(updates['x'], expected, rtol=1e-6)


def test_decay_is_as_the_kinds_say_but_for_the_rules():
  config = config_of(**ADAMW | {'decay_rules': ()})
  params = abstract_variables(config)['params']
  factors = decay_factors(config, params)
  named = dict(zip(paths.names(params), jax.tree.leaves(factors)))
  alone = {
    *('final_norm/scale', 'layers/attention_norm/scale', 'layers/feed_forward_norm/scale'),
  }
  assert {name for name, factor in named.items() if factor == 0} == alone
  assert {'embedding', 'head', 'layers/attention/query/a'} <= set(named)
  assert set(named.values()) == {0.0, 1.0}
  # The first rule that finds a path counts; what no rule finds is as the kinds say.
  rules = (('query/a', 0.25), ('query|final_norm', 0.5))
  config = config_of(**ADAMW | {'decay_rules': rules})
  factors = decay_factors(config, params)
  ruled = dict(zip(paths.names(params), jax.tree.leaves(factors)))
  changed = {name: factor for name, factor in ruled.items() if factor != named[name]}
  assert changed == {
    'layers/attention/query/a': 0.25,
    'layers/attention/query/b': 0.5,
    'final_norm/scale': 0.5,
  }


@pytest.mark.parametrize('rules', [ADAMW['decay_rules'], ()])
def test_a_factor_of_zero_is_no_decay(rules):
  config = config_of(**ADAMW | {'decay_rules': rules})
  params = {'final_norm': {'scale': jnp.ones(3)}, 'head': jnp.ones((3, 2))}
  optimizer = make_optimizer(config, params)
  zeros = jax.tree.map(jnp.zeros_like, params)
  updates, _ = optimizer.update(zeros, optimizer.init(params), params)
  assert not updates['final_norm']['scale'].any()
  np.testing.assert_allclose(updates['head'], -0.01 * 0.1, rtol=1e-6)


@pytest.mark.parametrize('kind', OPTIMIZERS)
def test_embedding_and_head_have_a_rate_of_their_own(kind):
  """They go as in a run whose only rate is theirs, and all else as in one without it."""
  linear = 'low_rank' if kind == 'loro' else 'dense'
  ended = {}
  for name, rate, own in (('both', 0.01, 0.03), ('low', 0.01, 0.0), ('high', 0.03, 0.0)):
    config = default.get_config()
    choose(config, 'model.linear', linear)
    fields = {'learning_rate': rate, 'embedding_rate': own}
    choose(config, 'optimizer', kind, **fields)
    ended[name] = stepped(parse(config))
  every = set(ended['both'])
  for path in every & {'embedding', 'head'}:
    np.testing.assert_allclose(
      ended['both'][path], ended['high'][path], rtol=2e-5, atol=1e-8
    )
    assert (ended['both'][path] != ended['low'][path]).any()
  for path in every - {'embedding', 'head'}:
    np.testing.assert_array_equal(ended['both'][path], ended['low'][path])


def stepped(config):
  """Path -> the sum of three steps' updates, of gradients that do not depend on them."""
  params = jax.tree.map(
    lambda x: jnp.ones(x.shape, x.dtype), abstract_variables(config)['params']
  )
  optimizer = make_optimizer(config, params)
  state, total = optimizer.init(params), jax.tree.map(jnp.zeros_like, params)
  draw = lambda x, seed: np.random.default_rng(seed).normal(size=x.shape).astype(x.dtype)
  update = jax.jit(optimizer.update)
  for seed in range(3):
    gradients = jax.tree.map(lambda x, seed=seed: draw(x, seed), params)
    updates, state = update(gradients, state, params)
    total = jax.tree.map(jnp.add, total, updates)
  return dict(zip(paths.names(total), jax.tree.leaves(total)))


def test_networks_of_rows_have_no_embedding_rate():
  config = images.get_config('digits,mlp')
  config.optimizer.embedding_rate = 0.1
  with pytest.raises(UserError) as error:
    parse(config)
  assert str(error.value) == (
    "optimizer.embedding_rate=0.1: must be 0 for task='classification', which has no "
    'embedding; it is for a decoder'
  )
