"""LORO against NumPy in float64: its exact step, its lazy steps, its resets."""

import jax
import numpy as np
import optax
import pytest

from elas_jax.optim import groups
from elas_jax.optim.loro import exact_step, loro

B1, B2, EPSILON, LAZY = 0.9, 0.95, 1e-6, 0.25
SCHEDULE = optax.linear_schedule(0.02, 0.01, 10)


def normal(seed, *shape):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def tree(seed):
  pair = {'a': normal(seed, 2, 6, 2), 'b': normal(seed + 50, 2, 2, 5)}
  return {'layers': {'query': pair}, 'head': normal(seed + 100, 4, 3)}


def make(exact_every):
  return loro(
    SCHEDULE,
    b1=B1,
    b2=B2,
    epsilon=EPSILON,
    exact_every=exact_every,
    lazy_scale=LAZY,
  )


def directions(gradients):
  """Adam's directions after each of these gradients, in float64."""
  m = v = 0.0
  for t, g in enumerate(gradients, 1):
    g = np.asarray(g, np.float64)
    m, v = B1 * m + (1 - B1) * g, B2 * v + (1 - B2) * g * g
    yield m / (1 - B1**t) / (np.sqrt(v / (1 - B2**t)) + EPSILON)


def target(a, b, da, db, lr):
  """The map before it is cut to rank R: the published step, U K0 V^T with dN's K0."""
  a, b, da, db = (np.asarray(x, np.float64) for x in (a, b, da, db))
  u, rm = np.linalg.qr(b.T)
  v, rn = np.linalg.qr(a)
  gv, utg = db.T @ np.linalg.inv(rn), np.linalg.inv(rm).T @ da.T
  return (b.T @ a.T - lr * (u @ utg + gv @ v.T - u @ (utg @ v) @ v.T)).T


def cut(w, rank):
  p, sigma, zt = np.linalg.svd(w)
  return (p[:, :rank] * sigma[:rank]) @ zt[:rank], sigma[:rank]


@pytest.mark.parametrize('shape', [(12, 9, 3), (4, 9, 3), (9, 4, 4), (5, 5, 1)])
def test_exact_step_of_one_gradient_is_the_cut_projected_step(shape):
  rows, columns, rank = shape
  lr = 0.1
  a, b = normal(0, rows, rank), normal(1, rank, columns)
  g = normal(2, rows, columns).astype(np.float64)
  left = np.linalg.qr(a.astype(np.float64))[0]
  right = np.linalg.qr(b.T.astype(np.float64))[0]
  left, right = left @ left.T, right @ right.T
  w = a.astype(np.float64) @ b - lr * (left @ g + g @ right - left @ g @ right)
  new_a, new_b = exact_step(a, b, (g @ b.T).astype('f4'), (a.T @ g).astype('f4'), lr)
  best, sigma = cut(w, rank)
  np.testing.assert_allclose(np.asarray(new_a) @ new_b, best, rtol=1e-4, atol=2e-5)
  np.testing.assert_allclose(new_a.T @ new_a, np.diag(sigma), rtol=1e-4, atol=2e-5)
  np.testing.assert_allclose(new_b @ new_b.T, np.diag(sigma), rtol=1e-4, atol=2e-5)


def test_exact_step_of_unrelated_directions():
  a, b, da, db = (normal(i, *s) for i, s in enumerate([(9, 3), (3, 7)] * 2))
  new_a, new_b = exact_step(a, b, da, db, 0.2)
  best, sigma = cut(target(a, b, da, db, 0.2), 3)
  np.testing.assert_allclose(np.asarray(new_a) @ new_b, best, rtol=1e-4, atol=2e-5)
  np.testing.assert_allclose(new_a.T @ new_a, np.diag(sigma), rtol=1e-4, atol=2e-5)


def test_exact_step_without_a_gradient_keeps_the_map():
  a, b = normal(0, 9, 3), normal(1, 3, 7)
  new_a, new_b = exact_step(a, b, 0 * a, 0 * b, 0.2)
  np.testing.assert_allclose(np.asarray(new_a) @ new_b, a @ b, rtol=1e-4, atol=1e-5)


def test_stacked_layers_step_as_separate_ones():
  a, b, da, db = (normal(i, *s) for i, s in enumerate([(2, 4, 9, 3), (2, 4, 3, 7)] * 2))
  stacked = exact_step(a, b, da, db, 0.2)
  for i in np.ndindex(2, 4):
    one = exact_step(a[i], b[i], da[i], db[i], 0.2)
    for ours, alone in zip(stacked, one):
      # Factors are unique up to the signs of their columns.
      np.testing.assert_allclose(np.abs(ours[i]), np.abs(alone), rtol=1e-4, atol=1e-5)
    product = np.asarray(stacked[0][i]) @ stacked[1][i]
    np.testing.assert_allclose(product, one[0] @ one[1], rtol=1e-4, atol=1e-5)


def test_lazy_steps_equal_adam():
  optimizer, params = make(exact_every=100), tree(0)
  state, update = optimizer.init(params), jax.jit(optimizer.update)
  golden = [directions([tree(t)['head'] for t in range(1, 5)])]
  for name in 'ab':
    golden.append(directions([tree(t)['layers']['query'][name] for t in range(1, 5)]))
  for step, (head, a, b) in enumerate(zip(*golden)):
    updates, state = update(tree(step + 1), state, params)
    lr = 0.02 - 0.001 * step
    pair = updates['layers']['query']
    np.testing.assert_allclose(updates['head'], -lr * head, rtol=1e-4)
    np.testing.assert_allclose(pair['a'], -lr * LAZY * a, rtol=1e-4)
    np.testing.assert_allclose(pair['b'], -lr * LAZY * b, rtol=1e-4)


def test_every_third_step_is_exact_and_resets_adam():
  optimizer, params = make(exact_every=3), tree(0)
  state, update = optimizer.init(params), jax.jit(optimizer.update)
  since = []
  for step in range(1, 8):
    grads = tree(step)
    since.append(grads)
    updates, state = update(grads, state, params)
    lr = 0.02 - 0.001 * (step - 1)
    last = lambda get: list(directions([get(g) for g in since]))[-1]  # noqa: B023
    np.testing.assert_allclose(updates['head'], -lr * last(lambda g: g['head']), rtol=1e-4)
    old, pair = params['layers']['query'], updates['layers']['query']
    da, db = (last(lambda g, n=n: g['layers']['query'][n]) for n in 'ab')
    exact = step % 3 == 0
    if exact:
      new = np.asarray(old['a'] + pair['a']) @ np.asarray(old['b'] + pair['b'])
      for i in range(2):
        best, _ = cut(target(old['a'][i], old['b'][i], da[i], db[i], lr), 2)
        np.testing.assert_allclose(new[i], best, rtol=1e-4, atol=1e-5)
      since = []
    else:
      np.testing.assert_allclose(pair['a'], -lr * LAZY * da, rtol=1e-4)
      np.testing.assert_allclose(pair['b'], -lr * LAZY * db, rtol=1e-4)
    assert all((not np.any(x)) == exact for x in jax.tree.leaves(state.adam)), step
    assert int(state.count) == step
    params = optax.apply_updates(params, updates)


def test_moments_end_in_the_path_of_their_parameter():
  found = groups.names(make(exact_every=3).init(tree(0)))
  for name in groups.names(tree(0)):
    assert sum(path.endswith('/' + name) for path in found) == 2
