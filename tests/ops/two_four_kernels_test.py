"""The feed-forward by the kernels, emulated, and on several devices."""

import functools
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from elas_jax.ops.two_four import (
  BACKWARDS,
  HAVE_KERNELS,
  Recipe,
  described,
  sparse_feed_forward,
  two_four_feed_forward,
  without_kernels,
)
from elas_jax.run.sharding import AXES
from pallas_kernels.two_four import dispatch, feed_forward, sharded_feed_forward
from pallas_kernels.two_four.dispatch import emulated
from tests.conftest import thinned

T, D, F, R = 64, 24, 136, 16
MESHES = [[4, 1, 1], [2, 1, 2], [1, 4, 1], [1, 1, 4]]


def operands(kind: str):
  """Of multiples of 1/4, so that sums are exact in any order; and bf16."""
  keys = iter(jax.random.split(jax.random.key(0), 6))

  def random(*shape):
    return (jax.random.randint(next(keys), shape, -1, 2) / 4).astype(jnp.bfloat16)

  if kind == 'dense':
    return random(T, D), (random(D, F),), (random(F, D),), random(T, D)
  return (
    random(T, D),
    (random(D, R), random(R, F)),
    (random(F, R), random(R, D)),
    random(T, D),
  )


def value_and_gradients(function, x, up, down, g):
  out, backward = jax.vjp(function, x, up, down)
  return [np.asarray(a, np.float32) for a in jax.tree.leaves((out, backward(g)))]


@pytest.mark.conformance
@pytest.mark.parametrize(
  ('kind', 'backward'),
  [('dense', 'exact'), ('low_rank', 'exact'), ('low_rank', 'transposable')],
)
def test_kernels_compute_the_recipe(kind, backward):
  recipe = Recipe('top2', backward, 16)
  x, up, down, g = operands(kind)
  expected = value_and_gradients(
    functools.partial(sparse_feed_forward, recipe), x, up, down, g
  )
  by_kernels = functools.partial(two_four_feed_forward, recipe)
  with emulated():
    got = value_and_gradients(by_kernels, x, up, down, g)
  for a, b in zip(got, expected, strict=True):
    np.testing.assert_allclose(a, b, rtol=2**-7, atol=2**-7 * np.abs(b).max())


H200 = dispatch.H200
B200 = types.SimpleNamespace(
  platform='gpu', device_kind='NVIDIA B200', compute_capability='10.0'
)


@pytest.fixture
def device(monkeypatch, tmp_path):
  """Sets the device that dispatch sees, and whether the kernels were checked on it."""
  monkeypatch.setattr(dispatch, 'TUNED', tmp_path)

  def use(device, checked=True):
    monkeypatch.setattr(dispatch, '_device', lambda: device)
    if checked:
      dispatch.tuned_file(device).write_text(json.dumps({'configs': {}}))

  return use


def kernels(*names, kind='low_rank'):
  """How many kernels forward and backward of a recipe have; nothing is compiled."""
  x, up, down, g = operands(kind)
  function = functools.partial(two_four_feed_forward, Recipe(*names))
  both = lambda x, up, down: jax.vjp(function, x, up, down)[1](g)
  return str(jax.make_jaxpr(both)(x, up, down)).count('copy_gmem_to_smem')


def test_the_implementation_that_is_asked_for_is_taken(device):
  device(H200, checked=False)
  assert kernels('top2', 'exact', 16, 'auto') == 0
  forced = kernels('top2', 'exact', 16, 'mosaic')
  assert forced
  device(H200)
  assert kernels('top2', 'exact', 16, 'auto') == forced
  for backward in BACKWARDS:
    assert kernels('top2', backward, 16, 'xla') == 0, backward


@pytest.mark.parametrize('backward', BACKWARDS)
def test_no_product_of_a_forced_recipe_runs_elsewhere(device, backward):
  device(H200)
  whole = backward in HAVE_KERNELS
  assert bool(without_kernels('top2', backward)) == (not whole)
  if whole:
    assert kernels('top2', backward, 16, 'mosaic')
    return
  assert kernels('top2', backward, 16, 'auto')  # pruning and the forward product
  with pytest.raises(NotImplementedError, match=f'the backward pass {backward!r} have no'):
    kernels('top2', backward, 16, 'mosaic')


def test_on_several_devices_no_kernel_is_left_to_the_compiler(device):
  device(H200)
  mesh = jax.make_mesh((2, 1, 2), AXES, (AxisType.Auto,) * 3)
  with jax.set_mesh(mesh):
    assert kernels('top2', 'straight_through', 16, 'auto') == 0
    assert kernels('top2', 'exact', 16, 'xla') == 0
    assert kernels('top2', 'exact', 16, 'mosaic')


def test_tokens_of_a_forced_recipe_must_divide(device):
  device(H200)
  x, up, down, _ = operands('low_rank')
  function = lambda which: (
    lambda x: two_four_feed_forward(Recipe('top2', 'exact', 16, which), x, up, down)
  )
  mesh = jax.make_mesh((4, 1, 1), AXES, (AxisType.Auto,) * 3)
  with jax.set_mesh(mesh):
    jax.eval_shape(function('auto'), x[:6])
    with pytest.raises(ValueError, match='T must divide by the 4 parts'):
      jax.eval_shape(function('mosaic'), x[:6])


def test_what_computes_the_products_is_said(device):
  said = lambda which='auto', backward='exact', dtype='bfloat16', devices=1: described(
    Recipe('top2', backward, 16, which), dtype, devices
  )
  device(H200, checked=False)
  assert said() == said('xla') == said('auto', 'split') == 'dense, in XLA'
  assert said('mosaic') == 'by the kernels for sparse tensor cores'
  device(H200)
  assert said() == said(devices=4) == said('mosaic')
  assert said(dtype='float32') == said('xla', 'split') == 'dense, in XLA'
  assert 'of the forward pass by the kernels' in said('auto', 'split')
  assert said('auto', 'split', devices=2).startswith('dense, in XLA')
  device(B200, checked=False)
  with pytest.raises(NotImplementedError, match='B200'):
    said('mosaic')


@pytest.mark.conformance
@pytest.mark.parametrize('tokens', [1, 6])
def test_kernels_take_any_number_of_tokens(tokens):
  recipe = Recipe('top2', 'transposable', tokens)
  x, up, down, g = operands('low_rank')
  x, g = x[:tokens], g[:tokens]
  function = functools.partial(sparse_feed_forward, recipe)
  expected = function(x, up, down)
  with emulated():
    got, *_ = value_and_gradients(
      functools.partial(two_four_feed_forward, recipe), x, up, down, g
    )
  np.testing.assert_allclose(got, np.asarray(expected, np.float32), rtol=2**-7, atol=2**-7)


@pytest.mark.parametrize('sizes', thinned(MESHES, [2, 1, 2]))
def test_sharded_equals_one_device(sizes):
  x, (_, up), (down, _), _ = operands('low_rank')
  s, g = x[:, :R], x[:, :R]
  loss = lambda f: lambda s, up, down: jnp.vdot(f(s, up, down), g).astype(jnp.float32)
  expected = jax.grad(loss(feed_forward), (0, 1, 2))(s, up, down)
  mesh = jax.make_mesh(tuple(sizes), AXES, (AxisType.Auto,) * 3)
  place = lambda x, *spec: jax.device_put(x, NamedSharding(mesh, PartitionSpec(*spec)))
  split = functools.partial(
    sharded_feed_forward, rows=('data', 'fsdp'), features='tensor', implementation='xla'
  )
  with jax.set_mesh(mesh):
    args = place(s, ('data', 'fsdp')), place(up, 'fsdp', 'tensor'), place(down, 'tensor')
    got = jax.jit(jax.grad(loss(split), (0, 1, 2)))(*args)
  for a, b in zip(got, expected, strict=True):
    np.testing.assert_allclose(
      np.asarray(a, np.float32), np.asarray(b, np.float32), rtol=2**-7, atol=2**-6
    )


def test_sharded_kernel_compiles_for_a_gpu(monkeypatch):
  # The interpreter knows one device only, so the kernels are not run here.
  monkeypatch.setattr(dispatch, '_wrong_device', lambda: '')
  x, (_, up), (down, _), _ = operands('low_rank')
  mesh = jax.make_mesh((1, 2, 2), AXES, (AxisType.Auto,) * 3)
  split = functools.partial(
    sharded_feed_forward, rows=('data', 'fsdp'), features='tensor', implementation='mosaic'
  )
  gradient = jax.grad(lambda *args: split(*args).astype(jnp.float32).sum(), (0, 1, 2))
  with jax.set_mesh(mesh):
    traced = jax.jit(gradient).trace(x[:, :R], up, down)
    text = traced.lower(lowering_platforms=('cuda',)).as_text()
  assert text.count('mosaic_gpu_v2') >= 4  # forward, dh, ds and the weights' gradients
  assert 'all_reduce' in text


def test_tokens_must_divide():
  x, (_, up), (down, _), _ = operands('low_rank')
  mesh = jax.make_mesh((4, 1, 1), AXES, (AxisType.Auto,) * 3)
  with jax.set_mesh(mesh), pytest.raises(ValueError, match='T must divide by the 4 parts'):
    sharded_feed_forward(x[:6, :R], up, down, rows=('data', 'fsdp'), features='tensor')
