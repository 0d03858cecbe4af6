"""Normalisations against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elas_jax.common.errors import UserError
from elas_jax.systems.kinds import about, axes, no_decay, room
from elas_jax.systems.norms import NORMS
from tests.systems.sections import config, decoder

ALL = [case for kind in NORMS.values() for case in room(kind).CASES]
PARTS = decoder().parts


def filled(module, x):
  """Variables that are not all 0 or 1."""
  variables = module.init(jax.random.key(0), x)
  leaves, tree = jax.tree.flatten(variables)
  random = np.random.default_rng(2)
  return jax.tree.unflatten(
    tree, [jnp.float32(random.uniform(0.5, 2, leaf.shape)) for leaf in leaves]
  )


def declared(variables):
  return {name: value for part in variables.values() for name, value in part.items()}


@pytest.mark.parametrize('kind', ALL)
def test_output_is_that_of_numpy(kind):
  kind.check('model.norm', config())
  x = np.random.default_rng(0).normal(1, 3, size=(4, 5, 8)).astype(np.float32)
  norm, variables = kind.make(PARTS, name=None), {}
  if hasattr(norm, 'init'):
    variables = filled(norm, x)
    norm = norm.bind(variables)
  p = jax.tree.map(lambda v: np.asarray(v, np.float64), declared(variables))
  expected = room(kind).truth(kind, np.float64(x), p)
  np.testing.assert_allclose(norm(jnp.asarray(x)), expected, rtol=1e-4, atol=1e-5)
  assert {name: len(roles) for name, roles in axes(kind).items()} == {
    name: value.ndim for name, value in p.items()
  }
  assert set(no_decay(kind)) == set(variables.get('params', {}))


@pytest.mark.parametrize('kind', room(NORMS['batch']).CASES)
def test_batch_norm_in_training(kind):
  assert about(kind, 'mixes_rows', default=False)
  x = np.random.default_rng(1).normal(1, 3, size=(4, 5, 8)).astype(np.float32)
  norm = kind.make(PARTS, name=None, train=True)
  variables = filled(norm, x)
  y, changed = norm.apply(variables, x, mutable=['buffers'])
  p = jax.tree.map(lambda v: np.asarray(v, np.float64), declared(variables))
  wide = np.float64(x)
  np.testing.assert_allclose(
    y, room(kind).truth(kind, wide, p, train=True), rtol=1e-4, atol=1e-5
  )
  rows = wide.reshape(-1, 8)
  for name, now in (('mean', rows.mean(0)), ('variance', rows.var(0))):
    kept = kind.momentum * p[name] + (1 - kind.momentum) * now
    np.testing.assert_allclose(changed['buffers'][name], kept, rtol=1e-5)


@pytest.mark.parametrize('name', ['rms', 'layer'])
def test_others_do_not_mix_rows_and_keep_bf16(name):
  kind = NORMS[name]()
  assert not about(kind, 'mixes_rows', default=False)
  parts = decoder(compute_dtype='bfloat16', param_dtype='bfloat16').parts
  x = jax.random.normal(jax.random.key(0), (2, 8)).astype(jnp.bfloat16)
  y, variables = kind.make(parts, name=None).init_with_output(jax.random.key(0), x)
  assert y.dtype == jnp.bfloat16
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype('bfloat16')}


@pytest.mark.parametrize('name', ['rms', 'layer', 'batch'])
def test_refused(name):
  with pytest.raises(UserError, match=r'model.norm.epsilon=0.0: must be above 0'):
    NORMS[name](epsilon=0.0).check('model.norm', config())


def test_momentum_is_a_share():
  with pytest.raises(UserError, match=r'model.norm.momentum=1.5: must be between 0 and 1'):
    NORMS['batch'](momentum=1.5).check('model.norm', config())
