"""The operations by their kernels, in Mosaic GPU's interpreter on a CPU."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels.two_four import cases, dispatch, feed_forward, mosaic, reference
from pallas_kernels.two_four.dispatch import padded
from tests.conftest import thinned
from tests.pallas_kernels.same import assert_same

SMALL = cases.small()
# Of no whole tiles: one that packs and one that multiplies.
OPS = {case.op: case for case in SMALL if 72 in case.shape.values()}
OPS = [OPS['up_compress'], OPS['matmul']]


@pytest.fixture(autouse=True)
def on_a_cpu():
  with jax.default_device(jax.devices('cpu')[0]):
    yield


def emulated(function, *inputs):
  """What a function gives whose kernels are emulated.

  One program, and nothing else runs beside it: the interpreter works in callbacks that
  start computations themselves, which can wait for others forever.
  """
  with dispatch.emulated():
    return jax.block_until_ready(jax.jit(function)(*jax.block_until_ready(inputs)))


@pytest.mark.parametrize('case', thinned(SMALL, *OPS), ids=lambda case: case.name)
def test_equals_the_reference(case):
  inputs = case.inputs()
  actual = emulated(case.function('mosaic'), *inputs)
  assert_same(actual, case.function('xla')(*inputs))


def exact(s, up, down):
  """The feed-forward in float32, with the choice of the reference and no gradient of it."""
  z = reference.up_compress(*(jax.lax.stop_gradient(x) for x in (s, up)), False)
  kept = reference.expand(type(z)(jnp.ones_like(z.values), z.metadata, 1, z.shape))
  s, up, down = (x.astype(jnp.float32) for x in (s, up, down))
  return (jnp.square(jnp.maximum(s @ up, 0)) * kept.astype(jnp.float32)) @ down


def by_kernels(N: int):
  """A feed-forward, the fused kernel's for N = 40, and a function that makes its inputs."""
  [case] = [c for c in SMALL if c.op == 'feed_forward' and c.shape['N'] == N]
  return functools.partial(feed_forward, implementation='mosaic'), case.inputs


@pytest.mark.conformance
@pytest.mark.parametrize('N', [40, 300], ids=['fused', 'two_kernels'])
def test_gradients_of_the_feed_forward(N):
  function, make_inputs = by_kernels(N)
  inputs, g = make_inputs(exact=False), jax.random.normal(jax.random.key(1), (72, N))
  g = g.astype(jnp.bfloat16)

  def value_and_gradients(function, g, *inputs):
    value, backward = jax.vjp(function, *inputs)
    return value, *backward(g.astype(value.dtype))

  actual = emulated(functools.partial(value_and_gradients, function), g, *inputs)
  for a, b in zip(actual, value_and_gradients(exact, g, *inputs), strict=True):
    a, b = (np.asarray(x, np.float32) for x in (a, b))
    # z, g, dz and dh are rounded to 8 bits each.
    np.testing.assert_allclose(a, b, rtol=2**-6, atol=2**-7 * np.abs(b).max())


@pytest.mark.conformance
@pytest.mark.parametrize('N', [40, 300], ids=['fused', 'two_kernels'])
def test_what_is_kept_for_the_backward_pass(N):
  function, make_inputs = by_kernels(N)
  inputs = make_inputs()
  backward = emulated(lambda *inputs: jax.vjp(function, *inputs)[1], *inputs)
  s, up, down = inputs
  # Features are padded in the weights.
  up, down = padded(up, (1, mosaic.FEATURES)), padded(down, (mosaic.FEATURES, 1))
  z = reference.up_compress(s, up, False)
  saved = {x.shape: x for x in jax.tree.leaves(backward) if x.size > 1}
  assert set(saved) == {x.shape for x in jax.tree.leaves((s, up, down, z))}
  assert_same([saved[x.shape] for x in jax.tree.leaves(z)], z)
