"""ReLoRA: what a merge keeps, what it resets, when it happens."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from elas_jax.common import paths
from elas_jax.systems.linears.lora import relora

SCALE, EVERY = 0.5, 3
INIT = jax.nn.initializers.xavier_normal()


def tree(seed):
  random = np.random.default_rng(seed)
  normal = lambda *shape: jnp.asarray(random.normal(size=shape), jnp.float32)
  module = lambda: {'a': normal(2, 6, 3), 'b': normal(2, 3, 5), 'kernel': normal(2, 6, 5)}
  return {
    'head': {'kernel': normal(5, 4)},
    'layers': {'key': module(), 'query': module(), 'plain': {'a': normal(2, 3)}},
  }


def adam(**fields):
  return optax.chain(
    optax.clip_by_global_norm(1.0),
    optax.scale_by_adam(0.9, 0.95, 1e-6),
    optax.add_decayed_weights(0.1, **fields),
    optax.scale(-0.01),
  )


def make(inner=None, **fields):
  options = {'every': EVERY, 'scale': SCALE, 'seed': 0, 'init': INIT} | fields
  return relora(adam() if inner is None else inner, **options)


def run(optimizer, steps):
  """Yields the step, params before, updates and the state after, from step 1."""
  params = tree(0)
  state, update = optimizer.init(params), jax.jit(optimizer.update)
  for step in range(1, steps + 1):
    updates, state = update(tree(step), state, params)
    yield step, params, updates, state
    params = optax.apply_updates(params, updates)


def without_frozen(params):
  """The same parameters where no inner optimiser could see W0."""
  modules = params['layers'].items()
  trained = {k: {n: x for n, x in m.items() if n != 'kernel'} for k, m in modules}
  return {'head': params['head'], 'layers': trained}


def maps(modules):
  """What each LoRA module does to the unit vectors."""
  lora = (modules[name] for name in ('key', 'query'))
  return [np.asarray(m['kernel'] + SCALE * (m['a'] @ m['b'])) for m in lora]


def test_between_merges_it_is_the_inner_optimizer_and_w0_is_frozen():
  inner = adam()
  reference = inner.init(without_frozen(tree(0)))
  for step, params, updates, _ in run(make(every=100), 4):
    golden, reference = inner.update(
      without_frozen(tree(step)), reference, without_frozen(params)
    )
    for ours, theirs in zip(
      jax.tree.leaves(without_frozen(updates)), jax.tree.leaves(golden)
    ):
      np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-8)
    assert not np.any(updates['layers']['query']['kernel'])


def test_a_merge_keeps_the_map_of_that_step():
  """The run without merges makes the same first step as the one that merges after it."""
  (_, params, merged, _), *_ = run(make(every=1), 1)
  (_, _, stepped, _), *_ = run(make(every=100), 1)
  merged, stepped = (optax.apply_updates(params, u) for u in (merged, stepped))
  for ours, golden in zip(maps(merged['layers']), maps(stepped['layers'])):
    np.testing.assert_allclose(ours, golden, rtol=1e-5, atol=1e-6)
  for name in ('key', 'query'):
    new, old = merged['layers'][name], params['layers'][name]
    assert not np.any(new['b'])
    assert np.abs(new['kernel'] - old['kernel']).min() > 1e-6
  np.testing.assert_array_equal(merged['head']['kernel'], stepped['head']['kernel'])
  np.testing.assert_array_equal(
    merged['layers']['plain']['a'], stepped['layers']['plain']['a']
  )


def test_merges_come_every_third_step():
  merges = [
    step
    for step, _, updates, _ in run(make(), 7)
    if np.any(updates['layers']['query']['kernel'])
  ]
  assert merges == [3, 6]


def test_a_merge_zeroes_the_moments_of_the_factors_only():
  for step, _, _, state in run(make(), 4):
    is_adam = lambda node: isinstance(node, optax.ScaleByAdamState)
    (found,) = filter(is_adam, jax.tree.leaves(state, is_leaf=is_adam))
    assert int(found.count) == int(state.count) == step
    for moments in (found.mu, found.nu):
      for name in ('key', 'query'):
        module = moments['layers'][name]
        assert not jax.tree.leaves(module['kernel'])
        assert {bool(np.any(module[n])) for n in 'ab'} == {step != 3}
      assert np.all(moments['head']['kernel'])
      assert np.all(moments['layers']['plain']['a'])


def test_a_new_a_is_drawn_for_each_module_layer_and_merge():
  drawn = []
  ones = lambda key, shape, dtype: jax.random.uniform(key, (), dtype) * jnp.ones(shape)
  for step, params, updates, _ in run(make(init=ones), 6):
    if step % EVERY == 0:
      for name in ('key', 'query'):
        new = params['layers'][name]['a'] + updates['layers'][name]['a']
        for matrix_IxR in np.asarray(new):
          np.testing.assert_allclose(matrix_IxR, matrix_IxR[0, 0], rtol=1e-5, atol=1e-6)
          drawn.append(round(float(matrix_IxR[0, 0]), 4))
  assert len(drawn) == len(set(drawn)) == 8


def test_the_initializer_sees_one_matrix():
  """Xavier's variance is of (I, R), not of the stack of layers."""
  params = {'a': jnp.zeros((8, 90, 60)), 'b': jnp.ones((8, 60, 2))}
  params['kernel'] = jnp.zeros((8, 90, 2))
  optimizer = make(optax.scale(0.0), every=1)
  updates, _ = optimizer.update(params, optimizer.init(params), params)
  np.testing.assert_allclose(np.std(updates['a']), np.sqrt(2 / 150), rtol=0.02)


def test_runs_are_bit_equal_and_seeds_differ():
  last = lambda seed: list(run(make(seed=seed), 4))[-1][1]
  one, again, other = last(0), last(0), last(1)
  for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(again)):
    np.testing.assert_array_equal(x, y)
  assert np.any(one['layers']['key']['a'] != other['layers']['key']['a'])


def test_masks_of_the_inner_optimizer_may_cover_w0():
  mask = jax.tree.map(lambda _: True, tree(0))
  with_mask = [updates for *_, updates, _ in run(make(adam(mask=mask)), 1)]
  without = [updates for *_, updates, _ in run(make(), 1)]
  for x, y in zip(jax.tree.leaves(with_mask), jax.tree.leaves(without)):
    np.testing.assert_array_equal(x, y)


def test_moments_end_in_the_path_of_their_parameter():
  found = paths.names(make().init(tree(0)))
  for name in paths.names(without_frozen(tree(0))):
    assert sum(path.endswith('/' + name) for path in found) == 2


def test_a_bias_goes_on_through_merges():
  params = {'a': jnp.ones((8, 2)), 'b': jnp.ones((2, 4)), 'kernel': jnp.ones((8, 4))}
  params['bias'] = jnp.zeros(4)
  gradient = {name: jnp.full_like(x, 0.5) for name, x in params.items()}

  def bias_after(optimizer, steps=5):
    state, moved = optimizer.init(params), params
    for _ in range(steps):
      updates, state = optimizer.update(gradient, state, moved)
      moved = optax.apply_updates(moved, updates)
    return moved['bias']

  plain = optax.scale_by_adam()  # no clipping, which would see the frozen kernel
  np.testing.assert_array_equal(bias_after(make(plain)), bias_after(plain))
