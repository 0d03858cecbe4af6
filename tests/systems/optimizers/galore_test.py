"""GaLore against NumPy; what it stores; what it recovers."""

import jax
import numpy as np
import optax
import pytest

from elas_jax.common.paths import names
from elas_jax.systems.optimizers.galore import scale_by_galore

# The epsilon is a large one, so that it shows where it is added.
B1, B2, EPSILON = 0.9, 0.95, 0.1
MASK = {'wide': True, 'tall': True, 'square': True, 'dense': False, 'scale': True}
# The side of P, its input axis last but one: the shorter one, the input's in a square.
SHAPES = {'wide': (2, 4, 7), 'tall': (2, 7, 4), 'square': (5, 5)}


def tree(seed):
  random = np.random.default_rng(seed)
  shapes = SHAPES | {'dense': (4, 6), 'scale': (3,)}
  return {k: random.normal(size=s).astype(np.float32) for k, s in shapes.items()}


def make(projected=MASK, **fields):
  options = {'rank': 2, 'every': 3, 'scale': 0.25, 'epsilon': EPSILON} | fields
  return scale_by_galore(b1=B1, b2=B2, projected=projected, **options)


def subspace(gradient, rank):
  u, _, vt = np.linalg.svd(gradient, full_matrices=False)
  from_left = gradient.shape[-2] <= gradient.shape[-1]
  return u[..., :rank] if from_left else np.swapaxes(vt, -1, -2)[..., :rank]


def test_directions_equal_numpy_across_a_change_of_the_subspace():
  optimizer = make()
  state, update = optimizer.init(tree(0)), jax.jit(optimizer.update)
  m = v = dict.fromkeys(MASK, 0.0)
  p = {}
  for step in range(5):
    grads = {k: x.astype(np.float64) for k, x in tree(step + 1).items()}
    updates, state = update(tree(step + 1), state)
    for name, g in grads.items():
      low = g
      if name in SHAPES:
        if step % 3 == 0:
          p[name] = subspace(g, 2)
          # A singular vector's sign is free: the moments' signs follow.
          ours = np.asarray(state.projection[name])
          p[name] *= np.sign((p[name] * ours).sum(-2, keepdims=True))
        pt = np.swapaxes(p[name], -1, -2)
        left = name != 'tall'
        low = pt @ g if left else g @ p[name]
      m = m | {name: B1 * m[name] + (1 - B1) * low}
      v = v | {name: B2 * v[name] + (1 - B2) * low * low}
      t = step + 1
      d = np.sqrt(1 - B2**t) / (1 - B1**t) * m[name] / (np.sqrt(v[name]) + EPSILON)
      if name in SHAPES:
        d = 0.25 * (p[name] @ d if left else d @ pt)
      np.testing.assert_allclose(
        updates[name], d, rtol=1e-3, atol=1e-4, err_msg=f'{name} {step}'
      )


def test_the_subspace_changes_only_every_third_step():
  optimizer = make()
  state, update = optimizer.init(tree(0)), jax.jit(optimizer.update)
  seen = []
  for step in range(7):
    _, state = update(tree(step), state)
    seen.append(np.asarray(state.projection['wide']))
  changed = [not np.array_equal(x, y) for x, y in zip(seen, seen[1:])]
  assert changed == [False, False, True, False, False, True]
  assert int(state.count) == 7


def test_moments_have_the_projected_shape():
  state = make().init(tree(0))
  assert state.projection['wide'].shape == (2, 4, 2)
  assert state.projection['tall'].shape == (2, 4, 2)
  assert state.projection['square'].shape == (5, 2)
  low = {'wide': (2, 2, 7), 'tall': (2, 7, 2), 'square': (2, 5)}
  low |= {'dense': (4, 6), 'scale': (3,)}
  for moments in (state.adam.mu, state.adam.nu):
    assert {k: x.shape for k, x in moments.items()} == low
  found = names(state)
  assert {sum(p.endswith('/' + k) for p in found) for k in SHAPES} == {3}
  assert {sum(p.endswith('/' + k) for p in found) for k in ('dense', 'scale')} == {2}


def test_a_gradient_of_low_rank_is_recovered():
  """With a huge epsilon Adam only scales; then rank R gives a gradient of rank R back."""
  random = np.random.default_rng(0)
  g = random.normal(size=(3, 8, 2)) @ random.normal(size=(3, 2, 6))
  grads = {'kernel': g.astype(np.float32)}
  huge = 1e6
  options = {'b1': B1, 'b2': B2, 'epsilon': huge, 'every': 1, 'projected': lambda p: mask}
  mask = {'kernel': True}
  for rank, equal in ((2, True), (1, False)):
    # The first bias correction is sqrt(1 - B2) / (1 - B1), of which m takes the latter.
    optimizer = scale_by_galore(rank=rank, scale=huge / np.sqrt(1 - B2), **options)
    updates, _ = optimizer.update(grads, optimizer.init(grads))
    assert np.allclose(updates['kernel'], g, rtol=1e-4, atol=1e-4) == equal


def test_first_direction_is_a_rotation_of_signs():
  """Adam's first direction is the sign of P^T G, so that |P^T direction| = scale."""
  optimizer = make({'kernel': True}, rank=9, scale=0.5, epsilon=1e-6)
  grads = {'kernel': tree(0)['square']}
  updates, state = optimizer.update(grads, optimizer.init(grads))
  p = state.projection['kernel']
  assert p.shape == (5, 5)  # the rank is at most the shorter side
  np.testing.assert_allclose(np.abs(p.T @ updates['kernel']), 0.5, rtol=2e-3)


@pytest.mark.parametrize('projected', [dict.fromkeys(MASK, False), lambda p: UNMASKED])
def test_without_projected_leaves_it_is_adam_with_a_shrinking_epsilon(projected):
  optimizer = make(projected)
  state, reference = optimizer.init(tree(0)), optax.scale_by_adam(B1, B2).init(tree(0))
  for step in range(3):
    adam = optax.scale_by_adam(B1, B2, EPSILON / np.sqrt(1 - B2 ** (step + 1)))
    updates, state = optimizer.update(tree(step), state)
    golden, reference = adam.update(tree(step), reference)
    for name in MASK:
      np.testing.assert_allclose(updates[name], golden[name], rtol=1e-5)


UNMASKED = dict.fromkeys(MASK, False)
