"""AdamW against NumPy; groups by path."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import default
from elas_jax.common.errors import UserError
from elas_jax.config.config import parse
from elas_jax.optim import groups
from elas_jax.optim.optimizer import apply_updates, make_optimizer


def config_of(steps, **fields):
  config = parse(default.get_config())
  base = dataclasses.replace(
    config.optimizer,
    learning_rate=0.01,
    schedule='constant',
    warmup_steps=0,
    b1=0.9,
    b2=0.95,
    epsilon=1e-6,
    weight_decay=0.1,
    decay_rules=(('scale$', 0.0), ('half', 0.5), ('.*', 1.0)),
    clip_norm=1.0,
  )
  return dataclasses.replace(
    config,
    optimizer=dataclasses.replace(base, **fields),
    train=dataclasses.replace(config.train, steps=steps),
  )


FACTORS = {'matrix': 1.0, 'half': 0.5, 'norm/scale': 0.0}


def tree(seed):
  random = np.random.default_rng(seed)
  normal = lambda *shape: random.normal(size=shape).astype(np.float32)
  return {'matrix': normal(4, 3), 'half': normal(5), 'norm': {'scale': normal(3)}}


def test_adamw_equals_numpy():
  params, steps = tree(0), 5
  optimizer = make_optimizer(config_of(steps), params)
  state = optimizer.init(params)
  ours = params
  flat = lambda tree: dict(zip(groups.names(tree), jax.tree.leaves(tree)))
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
  optimizer = make_optimizer(config_of(5), params)
  state = optimizer.init(params)
  updates, state = optimizer.update(params, state, params)
  arrays = [x for x in jax.tree.leaves((state, updates)) if x.ndim]
  assert len(arrays) == 9
  assert all(x.dtype == jnp.float32 for x in arrays)
  new = apply_updates(params, updates)
  assert all(x.dtype == jnp.bfloat16 for x in jax.tree.leaves(new))


def test_a_parameter_without_a_rule_is_named():
  config = config_of(5, decay_rules=(('matrix', 1.0), ('half', 1.0)))
  with pytest.raises(UserError, match=r"optimizer.decay_rules.*'norm/scale'"):
    make_optimizer(config, tree(0))


def test_first_matching_rule_wins():
  rules = (('h', 1), ('half', 2), ('.*', 3))
  found = groups.match(tree(0), rules, 'rules')
  assert found == {'matrix': 3, 'half': 1, 'norm': {'scale': 3}}
