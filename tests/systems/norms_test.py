"""Normalisations against NumPy."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elas_jax.common.errors import UserError
from elas_jax.config.checks import check
from elas_jax.models.classifier import Network
from elas_jax.models.decoder import Decoder
from elas_jax.systems.activations import ACTIVATIONS
from elas_jax.systems.architectures import ARCHITECTURES
from elas_jax.systems.kinds import about, axes, no_decay, room
from elas_jax.systems.norms import NORMS
from tests.conformance.truths import float64
from tests.systems.sections import classifier, config, decoder

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


@pytest.mark.parametrize('name', ['rms', 'layer', 'evonorm_s0'])
def test_others_do_not_mix_rows_and_keep_bf16(name):
  kind = NORMS[name]()
  assert not about(kind, 'mixes_rows', default=False)
  parts = decoder(compute_dtype='bfloat16', param_dtype='bfloat16').parts
  x = jax.random.normal(jax.random.key(0), (2, 8)).astype(jnp.bfloat16)
  y, variables = kind.make(parts, name=None).init_with_output(jax.random.key(0), x)
  assert y.dtype == jnp.bfloat16
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype('bfloat16')}


@pytest.mark.parametrize('name', ['rms', 'layer', 'batch', 'evonorm_s0', 'evonorm_b0'])
def test_refused(name):
  with pytest.raises(UserError, match=r'model.norm.epsilon=0.0: must be above 0'):
    NORMS[name](epsilon=0.0).check('model.norm', config())


@pytest.mark.parametrize('name', ['batch', 'evonorm_b0'])
def test_momentum_is_a_share(name):
  with pytest.raises(UserError, match=r'model.norm.momentum=1.5: must be between 0 and 1'):
    NORMS[name](momentum=1.5).check('model.norm', config())


# --- EvoNorm ---

EVONORMS = [case for name in NORMS if 'evo' in name for case in room(NORMS[name]).CASES]
SHAPES = {(3, 4, 4, 12): (1, 2), (3, 6, 12): (1,), (5, 12): ()}  # -> the axes of space


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('kind', EVONORMS)
def test_evonorm_over_the_space_of_images_of_rows_and_of_a_vision_transformer(kind, shape):
  """Also in training, which moves the running variance of B0."""
  x = np.random.default_rng(3).normal(1, 3, size=shape).astype(np.float32)
  for train in (False, True):
    norm = kind.make(classifier().parts, name=None, train=train)
    variables = filled(norm, x)
    y, changed = norm.apply(variables, x, mutable=['buffers'])
    p, wide = float64(declared(variables)), np.float64(x)
    options = {'space': SHAPES[shape]} | ({'train': train} if 'variance' in p else {})
    expected = room(kind).truth(kind, wide, p, **options)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    if train and 'variance' in p:
      now = wide.reshape(-1, shape[-1]).var(0)
      kept = kind.momentum * p['variance'] + (1 - kind.momentum) * now
      np.testing.assert_allclose(changed['buffers']['variance'], kept, rtol=1e-5)


def test_evonorm_s0_has_the_variances_of_a_group_norm():
  """That of flax, of values whose groups have mean 0; then it is x / sd times a sigmoid."""
  x = np.random.default_rng(4).normal(size=(2, 4, 4, 32, 3))
  x = (x - x.mean((1, 2, 4), keepdims=True)).reshape(2, 4, 4, 96).astype(np.float32)
  norms = (
    NORMS['evonorm_s0']().make(classifier().parts, name=None),
    nn.GroupNorm(32, epsilon=1e-5),
  )
  found, grouped = (one.init_with_output(jax.random.key(0), x)[0] for one in norms)
  np.testing.assert_allclose(found, grouped * jax.nn.sigmoid(x), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
  'channels, positions, count',
  [
    *((64, 64, 32), (48, 64, 24), (8, 64, 8), (7, 16, 7), (37, 64, 1)),  # the authors' rule
    *((192, 1, 12), (64, 1, 4), (8, 1, 1), (64, 4, 16)),  # 16 numbers at least
  ],
)
def test_groups_of_evonorm_s0(channels, positions, count):
  assert NORMS['evonorm_s0']().count(channels, positions) == count


def test_evonorm_replaces_the_activation():
  for name in ('evonorm_s0', 'evonorm_b0'):
    with pytest.raises(UserError) as error:
      check(config(classifier(norm=NORMS[name]())))
    assert str(error.value) == (
      f"model.activation='silu': must be 'none' with model.norm={name!r}, which is an "
      'activation as well'
    )
  with pytest.raises(UserError, match=r'^model.norm.groups=0: must be at least 1$'):
    NORMS['evonorm_s0'](groups=0).check('model.norm', config())


def test_evonorm_b0_is_not_for_a_decoder():
  with pytest.raises(
    UserError, match=r"^model.norm='evonorm_b0': would show a token those"
  ):
    check(config(decoder(norm=NORMS['evonorm_b0']())))


OF_A_DECODER = [case for case in ALL if not about(case, 'mixes_rows', default=False)]


@pytest.mark.parametrize('kind', OF_A_DECODER)
def test_norms_of_a_decoder_are_causal(kind):
  """Another last position changes its own and none before it."""
  x = np.random.default_rng(5).normal(size=(1, 6, 8)).astype(np.float32)
  other, norm = x.copy(), kind.make(PARTS, name=None)
  other[0, 5, 3] += 3
  function = norm.bind(filled(norm, x)) if hasattr(norm, 'init') else norm
  before, after = (np.asarray(function(jnp.asarray(y))) for y in (x, other))
  np.testing.assert_array_equal(before[:, :-1], after[:, :-1])
  assert np.abs(before - after).max() > 0.1


def test_a_decoder_of_evonorms_is_causal():
  model, tokens = decoder(norm=NORMS['evonorm_s0']()), jnp.arange(8)[None] % 7
  check(config(model))

  @jax.jit
  def logits(tokens):
    variables = Decoder(model).init(jax.random.key(0), tokens)
    return Decoder(model).apply(variables, tokens)[0][0]

  before, after = logits(tokens), logits(tokens.at[0, -1].set(9))
  np.testing.assert_array_equal(before[:-1], after[:-1])
  assert np.abs(before[-1] - after[-1]).max() > 1e-4


@pytest.mark.parametrize('architecture', ['convnet', 'resnet'])
@pytest.mark.parametrize('name', ['evonorm_s0', 'evonorm_b0'])
def test_evonorms_in_convolutional_networks(name, architecture):
  """Gradients reach every parameter."""
  kind = ARCHITECTURES[architecture]()
  none, two = ACTIVATIONS['none'](), 2 if architecture == 'convnet' else 1
  model = classifier(kind, norm=NORMS[name](), activation=none, depth=two)
  check(config(model))
  x = jax.random.normal(jax.random.key(1), (3, 8, 8, 1))
  variables = jax.jit(Network(model).init)(jax.random.key(0), x)

  def loss(params):
    now = variables | {'params': params}
    return jnp.square(Network(model).apply(now, x, True, mutable=['buffers'])[0] - 1).sum()

  for slope in jax.tree.leaves(jax.jit(jax.grad(loss))(variables['params'])):
    assert np.isfinite(slope).all() and np.abs(slope).max() > 0
