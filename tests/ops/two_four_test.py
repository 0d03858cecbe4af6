"""The pruned feed-forward and its backward passes against NumPy in float64."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.ad_checkpoint import saved_residuals
from jax.test_util import check_grads

from elas_jax.config.config import at_step
from elas_jax.models.decoder import Decoder
from elas_jax.ops.activation_statistics import activation_statistics
from elas_jax.ops.remat import REMAT_POLICIES
from elas_jax.ops.two_four import BACKWARDS, Recipe, estimated_scale, sparse_feed_forward
from elas_jax.systems.feed_forwards import FEED_FORWARDS
from pallas_kernels.two_four import compress, expand
from tests.conftest import thinned

T, L, D, F, R = 32, 16, 6, 40, 3


def problem(kind, seed=0, dtype='float32'):
  """x, U, V and the gradient of the output, for dense maps or factors."""
  random = np.random.default_rng(seed)
  normal = lambda *shape: jnp.asarray(random.normal(size=shape), dtype)
  up = (normal(D, F),) if kind == 'dense' else (normal(D, R), normal(R, F))
  down = (normal(F, D),) if kind == 'dense' else (normal(F, R), normal(R, D))
  return normal(T, D), up, down, normal(T, D)


def top2_mask(x_TxF):
  """Of each row's groups of four, by a stable sort."""
  groups = np.abs(x_TxF).reshape(len(x_TxF), -1, 4)
  order = np.argsort(-groups, axis=-1, kind='stable')[..., :2]
  mask = np.zeros(groups.shape, bool)
  np.put_along_axis(mask, order, True, axis=-1)
  return mask.reshape(x_TxF.shape)


def pruned_along_tokens(x_TxF, dense_F):
  """Top 2 of 4 positions of each sequence in a fixed order; some features stay whole."""
  order = np.random.default_rng(0).permutation(L)
  kept = np.zeros_like(x_TxF)
  for start in range(0, T, L):
    rows = start + order
    kept[rows] = np.where(top2_mask(x_TxF[rows].T).T, x_TxF[rows], 0)
  return np.where(dense_F, x_TxF, kept)


def best_of_tiles(z_TxF):
  """The most magnitude with two in each row and column of a 4 x 4 tile, by trial."""
  rows = [r for r in itertools.product((0, 1), repeat=4) if sum(r) == 2]
  masks = np.array(
    [m for m in itertools.product(rows, repeat=4) if (np.sum(m, axis=0) == 2).all()]
  )
  kept = np.zeros_like(z_TxF)
  for i, j in itertools.product(range(0, T, 4), range(0, F, 4)):
    tile = z_TxF[i : i + 4, j : j + 4]
    kept[i : i + 4, j : j + 4] = tile * masks[(masks * tile).sum(axis=(1, 2)).argmax()]
  return kept


def reference(x, up, down, g, backward, z=None):
  """(output, dx, dU, dV) by the definitions in ops/two_four.py; z: as drawn, if random."""
  wide = lambda tree: jax.tree.map(lambda a: np.asarray(a, np.float64), tree)
  x, up, down, g = wide((x, up, down, g))
  inputs = [x, x @ up[0]][: len(up)]
  h = inputs[-1] @ up[-1]
  y = np.maximum(h, 0) ** 2
  z = np.where(top2_mask(y), y, 0) if z is None else np.asarray(z, np.float64)
  t = z @ down[0]
  out = t if len(down) == 1 else t @ down[1]
  dt = g if len(down) == 1 else g @ down[1].T
  d_rest = () if len(down) == 1 else (t.T @ g,)
  dz = dt @ down[0].T
  dh = 2 * np.maximum(h, 0) * dz
  if backward == 'transposable':
    z_of_tiles = best_of_tiles(z)
  if backward in ('exact', 'split'):
    dh = dh * (z != 0)
  z_of_down = y if backward == 'straight_through_dense' else z
  if backward == 'transposable':
    z_of_down, dh = z_of_tiles, dh * (z_of_tiles != 0)
  dh_of_up = dh
  if backward == 'split':
    counts = (h > 0).sum(axis=0)
    dense_F = np.zeros(F, bool)
    dense_F[np.argsort(-counts, kind='stable')[: F // 20]] = True
    z_of_down, dh_of_up = (pruned_along_tokens(v, dense_F) for v in (z, dh))
  d_up = (inputs[-1].T @ dh_of_up,)
  ds = dh @ up[-1].T
  if len(up) == 2:
    d_up, ds = (x.T @ ds, *d_up), ds @ up[0].T
  return out, ds, d_up, (z_of_down.T @ dt, *d_rest)


@functools.partial(jax.jit, static_argnums=0)
def out_and_gradients(recipe, x, up, down, g, key=None, scale=None):
  f = lambda x, up, down: sparse_feed_forward(recipe, x, up, down, key, scale)
  out, vjp = jax.vjp(f, x, up, down)
  return out, *vjp(g)


@functools.partial(jax.jit, static_argnums=1)
def pruned(h, rule, **given):
  return expand(compress(h, rule=rule, activation='relu2', **given))


def assert_close(actual, expected, tolerance):
  """Of each array, the largest error as a share of its largest entry."""
  for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
    a = np.asarray(a, np.float64)
    assert a.shape == e.shape
    assert np.abs(a - e).max() <= tolerance * np.abs(e).max()


@pytest.mark.parametrize('kind', thinned(['dense', 'low_rank'], 'low_rank'))
@pytest.mark.parametrize('backward', BACKWARDS)
def test_gradients_by_definition(backward, kind):
  x, up, down, g = problem(kind)
  actual = out_and_gradients(Recipe('top2', backward, L), x, up, down, g)
  assert_close(actual, reference(x, up, down, g, backward), 2e-6)


def test_the_definitions_differ():
  x, up, down, g = problem('low_rank')
  leaves = {b: jax.tree.leaves(reference(x, up, down, g, b)) for b in BACKWARDS}
  # Output, dx, two of U, two of V; which of them are those of `exact`.
  same = {
    b: [np.array_equal(*pair) for pair in zip(leaves[b], leaves['exact'])] for b in leaves
  }
  assert same['straight_through'] == [True, False, False, False, True, True]
  assert same['straight_through_dense'] == [True, False, False, False, False, True]
  assert same['split'] == [True, True, True, False, False, True]
  assert same['transposable'] == [True, False, False, False, False, True]


@pytest.mark.parametrize('kind', ['dense', 'low_rank'])
def test_exact_is_the_gradient_by_finite_differences(kind):
  x, up, down, _ = problem(kind, seed=3)
  x = x[:2]
  h = np.asarray(functools.reduce(jnp.matmul, (x, *up)))
  y = np.sort(np.square(np.maximum(h, 0)).reshape(-1, 4), axis=-1)
  # Away from ties, where the mask would change: by more than a step of 1e-3 can move.
  clear = (y[:, 2] - y[:, 1] > 0.1) | (y[:, 2] == 0)
  features = np.flatnonzero(clear.reshape(2, -1).all(axis=0))
  assert len(features) > 3
  columns = (4 * features[:, None] + np.arange(4)).reshape(-1)
  up, down = (*up[:-1], up[-1][:, columns]), (down[0][columns], *down[1:])
  f = lambda x, up, down: sparse_feed_forward(Recipe('top2', 'exact', L), x, up, down)
  check_grads(jax.jit(f), (x, up, down), 1, modes=['rev'], eps=1e-3, atol=0.02, rtol=0.02)


def test_transposable_has_the_gradient_of_its_own_mask():
  x, up, down, g = problem('low_rank', seed=4)
  h = functools.reduce(jnp.matmul, (x, *up))
  z = pruned(h, 'transposable')
  actual = out_and_gradients(Recipe('transposable', 'exact', L), x, up, down, g)
  assert_close(actual, reference(x, up, down, g, 'exact', z), 2e-6)


@pytest.mark.parametrize('rule', ['mvue', 'soft_weights'])
def test_straight_through_with_changed_values(rule):
  x, up, down, g = problem('low_rank', seed=5)
  given = {'key': jax.random.key(3)} if rule == 'mvue' else {'scale': jnp.float32(1.5)}
  h = functools.reduce(jnp.matmul, (x, *up))
  z = pruned(h, rule, **given)
  recipe = Recipe(rule, 'straight_through', L)
  actual = out_and_gradients(recipe, x, up, down, g, **given)
  assert_close(actual, reference(x, up, down, g, 'straight_through', z), 2e-6)


@pytest.mark.parametrize('backward', thinned(BACKWARDS, 'exact'))
def test_gradients_in_bfloat16(backward):
  x, up, down, g = problem('low_rank', seed=6, dtype='bfloat16')
  actual = out_and_gradients(Recipe('top2', backward, L), x, up, down, g)
  assert all(a.dtype == jnp.bfloat16 for a in jax.tree.leaves(actual))
  # The mask is that of the rounded activations, where ties and near ties may differ.
  h = (x @ up[0]) @ up[1]
  z = pruned(h, 'top2')
  expected = reference(x, up, down, g, backward, z)
  for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
    # Token pruning decides on rounded values as well: some entries differ as a whole.
    tolerance = 0.1 if backward == 'split' else 0.02
    assert np.linalg.norm(np.float64(a) - e) <= tolerance * np.linalg.norm(e)


def saved(recipe, dtype='bfloat16'):
  """Shapes and dtypes of what the backward pass keeps besides the parameters."""
  x, up, down, _ = problem('low_rank', dtype=dtype)
  f = lambda x, up, down: jax.vjp(
    lambda *args: sparse_feed_forward(recipe, *args), x, up, down
  )
  leaves = jax.tree.leaves(jax.eval_shape(f, x, up, down)[1])
  weights = [k.shape for k in (*up, *down)]
  return [(x.shape, x.dtype.name) for x in leaves if x.shape not in weights]


def test_what_is_saved():
  always = [((T, D), 'bfloat16'), ((T, R), 'bfloat16'), ((T, R), 'bfloat16')]
  packed = [((T, F // 2), 'bfloat16'), ((1, 1, 256), 'uint32')]
  h = [((T, F), 'bfloat16')]
  expected = {
    'exact': packed,
    'straight_through': packed + h,
    'straight_through_dense': h,
    'split': packed + [((F,), 'int32')],
  }
  for backward, wide in expected.items():
    assert sorted(saved(Recipe('top2', backward, L))) == sorted(always + wide), backward


def test_split_needs_whole_groups_of_positions():
  x, up, down, g = problem('dense')
  with pytest.raises(ValueError, match='10 positions.*multiple of 4'):
    out_and_gradients(Recipe('top2', 'split', 10), x[:20], up, down, g[:20])


def test_estimated_scale():
  x, up, down, _ = problem('low_rank', seed=7)

  def expected(x, projection):
    p = np.maximum(np.float64(x) @ np.float64(up[0]) @ np.float64(up[1]), 0) ** 2
    groups = p.reshape(-1, 4)
    q = np.maximum(groups - np.sort(groups, axis=-1)[:, 1:2], 0).reshape(p.shape)
    p, q = p @ projection, q @ projection
    return np.clip((p * q).sum() / (q * q).sum(), 0.5, 2)

  estimate = jax.jit(estimated_scale, static_argnames='rows')
  weights = estimate(x, up, down[0])
  np.testing.assert_allclose(weights, expected(x, np.float64(down[0])), rtol=1e-5)
  activations = estimate(x, up, None, rows=8)
  np.testing.assert_allclose(activations, expected(x[::4], np.eye(F)), rtol=1e-5)
  assert 0.5 < weights < 2 and 0.5 < activations < 2 and weights != activations
  # Where nothing fires it is neither NaN nor infinite.
  assert estimate(jnp.zeros_like(x), up, None) == 0.5
  # Where all are nearly equal, the threshold leaves little.
  nearly_equal = jnp.full((1, 4), 3.0).at[0, 0].add(0.1)
  assert estimate(jnp.ones((T, 1)), (nearly_equal,), None) == 2
  assert not jax.jit(jax.grad(lambda x: estimated_scale(x, up, down[0])))(x).any()


RECIPE = 'model.feed_forward.recipe'
SOFT = {RECIPE: 'soft_weights', f'{RECIPE}.backward': 'straight_through'}


def two_four_config(make_config, **overrides):
  small = {'vocab_size': 11, 'width': 8, 'layers': 1, 'feed_forward_width': F}
  small |= {'attention.heads': 1, 'linear': 'low_rank', 'feed_forward': 'relu2_two_four'}
  small = {f'model.{name}': value for name, value in small.items()} | overrides
  if small['model.linear'] == 'low_rank':
    small['model.linear.rank'] = R
  return make_config(**small)


@pytest.mark.parametrize('linear', thinned(['dense', 'low_rank'], 'low_rank'))
def test_the_warm_up_has_the_same_parameters(make_config, linear):
  overrides = {'model.linear': linear, 'model.feed_forward.dense_steps': 3}
  config = two_four_config(make_config, **overrides)
  assert at_step(config, 4) == config
  warm_up = at_step(config, 3)
  expected = dataclasses.replace(config.model, feed_forward=FEED_FORWARDS['mlp']())
  assert warm_up == dataclasses.replace(config, model=expected)
  pruned, dense = (
    c.model.feed_forward.make(c.model.parts, name=None).init(
      jax.random.key(0), jnp.ones((1, 4, 8))
    )
    for c in (config, warm_up)
  )
  jax.tree.map(np.testing.assert_array_equal, pruned, dense)


def test_the_warm_up_keeps_the_buffers(make_config):
  config = two_four_config(make_config, **SOFT | {'model.feed_forward.dense_steps': 3})
  tokens = jnp.zeros((1, 4), jnp.int32)
  init = functools.partial(Decoder(config.model).init, jax.random.key(0), tokens)
  variables = jax.eval_shape(init)
  apply = functools.partial(Decoder(at_step(config, 3).model).apply, mutable=['buffers'])
  _, changed = jax.eval_shape(apply, variables, tokens)
  assert changed['buffers'] == variables['buffers']
  assert len(jax.tree.leaves(changed)) == 2


def layer_and_inputs(make_config, **overrides):
  model = two_four_config(make_config, **overrides).model
  layer = model.feed_forward.make(model.parts, name=None)
  inputs = jnp.asarray(np.random.default_rng(0).normal(size=(8, 2, 4, 8)), jnp.float32)
  return layer, jax.jit(layer.init)(jax.random.key(0), inputs[0]), inputs


def scales_of_training(layer, variables, inputs):
  """The scale after each pass."""
  train = jax.jit(functools.partial(layer.apply, mutable=['buffers']))
  scales = []
  for x in inputs:
    _, changed = train(variables, x)
    variables = variables | changed
    scales.append(float(changed['buffers']['scale']))
  return scales, variables


def test_soft_weights_fixes_its_scale_in_the_first_pass(make_config):
  layer, variables, inputs = layer_and_inputs(make_config, **SOFT)
  assert variables['buffers']['scale'] == 1
  scales, trained = scales_of_training(layer, variables, inputs)
  params = variables['params']
  up, down = ((params[n]['a'], params[n]['b']) for n in ('up', 'down'))
  first = estimated_scale(inputs[0].reshape(-1, 8), up, down[0])
  np.testing.assert_allclose(scales, float(first), rtol=1e-6)
  assert float(first) != 1
  # Reading it changes nothing, and it is what the kept entries are multiplied with.
  x = inputs[1].reshape(-1, 8)
  recipe = Recipe('soft_weights', 'straight_through', 4)
  expected = sparse_feed_forward(recipe, x, up, down, None, first)
  np.testing.assert_allclose(
    layer.apply(trained, inputs[1]).reshape(-1, 8), expected, rtol=1e-5, atol=1e-7
  )


def test_soft_activations_estimates_its_scale_periodically(make_config):
  overrides = SOFT | {RECIPE: 'soft_activations', f'{RECIPE}.refresh': 4}
  layer, variables, inputs = layer_and_inputs(make_config, **overrides)
  scales, _ = scales_of_training(layer, variables, inputs)
  up = tuple(variables['params']['up'][n] for n in 'ab')
  fresh = [float(estimated_scale(x.reshape(-1, 8), up, None)) for x in inputs]
  expected = [fresh[number - number % 4] for number in range(len(inputs))]
  np.testing.assert_allclose(scales, expected, rtol=1e-6)
  assert len(set(scales)) == 2


def test_mvue_draws_in_training_and_takes_the_key_it_is_given(make_config):
  overrides = SOFT | {RECIPE: 'mvue'}
  layer, variables, inputs = layer_and_inputs(make_config, **overrides)
  apply = lambda seed: layer.apply(
    variables, inputs[0], rngs={'noise': jax.random.key(seed)}
  )
  np.testing.assert_array_equal(apply(1), apply(1))
  assert (apply(1) != apply(2)).any()


def test_activation_statistics():
  y = np.zeros((2, 3, 8), np.float32)
  y[0, 0] = [1, 2, 3, 4, 0, 0, 0, 5]
  y[0, 1, 4:] = [1, 1, 1, 0]
  y[0, 2, :4] = [0, 1, 0, 1]
  # A token that does not count, whatever it holds.
  y = np.concatenate([y, np.full((2, 1, 8), 7, np.float32)], axis=1)
  valid = jnp.array([True, True, True, False])
  values, kept = activation_statistics(jnp.asarray(y), valid)
  np.testing.assert_allclose(values['zero_fraction'], [14 / 24, 1], rtol=1e-6)
  # Rows keep 3 4 | 5, 1 1 | 1 1; no column of a tile then has more than two.
  np.testing.assert_allclose(values['dropped_mass_transposable'], [4 / 20, 0], rtol=1e-6)
  np.testing.assert_allclose(values['dropped_mass'], [4 / 20, 0], rtol=1e-6)
  np.testing.assert_allclose(values['crowded_groups'], [2 / 6, 0], rtol=1e-6)
  expected = np.zeros((2, 4, 8), bool)
  expected[0, [0, 0, 0, 1, 1, 2, 2], [2, 3, 7, 4, 5, 1, 3]] = True
  np.testing.assert_array_equal(kept, expected)


@pytest.mark.parametrize('policy', ['dots', 'full', 'bottleneck'])
def test_remat_saves_nothing_F_wide(policy):
  x, up, down, _ = problem('low_rank')
  f = lambda *args: sparse_feed_forward(Recipe('top2', 'exact', L), *args)
  saved = saved_residuals(jax.checkpoint(f, policy=REMAT_POLICIES[policy]), x, up, down)
  weights = {kernel.shape for kernel in (*up, *down)}
  assert all(F not in x.shape for x, _ in saved if x.shape not in weights)
