"""The kernels with many tiles for each CTA, in Mosaic GPU's interpreter on a CPU.

The interpreter also looks for races: accesses to shared memory that no barrier, copy or
fence puts in order. What it does not see is a fence that is missing between a write and
tensor cores that read it.
"""

import dataclasses
from unittest import mock

import jax
import jax.numpy as jnp
import pytest
from jax._src.pallas.mosaic_gpu.interpret import gpu_callbacks
from jax.experimental.pallas import mosaic_gpu as plgpu

from pallas_kernels.two_four import compress, reference
from pallas_kernels.two_four.mosaic_gpu import dense, matmul, weight_gradient
from pallas_kernels.two_four.mosaic_gpu import feed_forward as fused
from pallas_kernels.two_four.mosaic_gpu.instructions import Instructions
from tests.pallas_kernels.same import assert_same

T, K, F, N = 512, 256, 256, 128  # two tiles or more for each of two emulated CTAs


@pytest.fixture(autouse=True)
def on_a_cpu():
  with jax.default_device(jax.devices('cpu')[0]):
    yield


def multiples(seed: int, *shape: int) -> jax.Array:
  """Of 1/4, small: no sum of products is rounded, in whatever order it is made."""
  x = jax.random.randint(jax.random.key(seed), shape, -2, 3) / 4
  return x.astype(jnp.bfloat16)


def fenced(product):
  """Tensor cores read shared memory as TMA writes it; what emulates them needs a fence."""

  def call(*args, **options):
    result = product(*args, **options)
    plgpu.commit_smem()
    return result

  return call


def run(kernel, *operands, **options):
  """A kernel, whose accesses to shared memory are checked for races."""
  operands = jax.block_until_ready(operands)
  with (
    mock.patch.object(Instructions, 'multiply', fenced(Instructions.multiply)),
    mock.patch.object(
      Instructions, 'sparse_multiply', fenced(Instructions.sparse_multiply)
    ),
    plgpu.force_gpu_interpret_mode(plgpu.InterpretGPUParams(detect_races=True)),
  ):
    out = jax.block_until_ready(kernel(*operands, emulate=True, **options))
  assert not gpu_callbacks.get_races().races_found
  return out


MATMULS = {
  '128x256': (matmul.Config(), 1, False, 'bfloat16'),
  'cluster': (matmul.Config(cluster=2), 0, True, 'bfloat16'),
  '192x192': (matmul.Config(warpgroups=3, tile_n=192), 1, True, 'bfloat16'),
  '256x128': (matmul.Config(warpgroup_rows=128, tile_n=128, stages=1), 0, False, 'float32'),
  '128x64': (matmul.Config(tile_n=64, stages=4), 1, False, 'float32'),
  'metadata first': (matmul.Config(metadata_first=True), 0, True, 'bfloat16'),
}


@pytest.mark.conformance
@pytest.mark.parametrize('name', MATMULS)
def test_matmul(name):
  config, axis, b_t, out = MATMULS[name]
  M, N = 4 * config.tile_m, config.tile_n
  x = compress(multiples(0, M, K) if axis == 1 else multiples(0, K, M), axis=axis)
  b = multiples(1, N, K) if b_t else multiples(1, K, N)
  options = {'axis': axis, 'b_t': b_t, 'out_dtype': jnp.dtype(out), 'config': config}
  product = run(matmul.matmul, x.values, x.metadata, b, **options)
  assert_same(product, reference.matmul(x, b, b_t, jnp.dtype(out)))


RESIDENT = dense.Config(warpgroups=3, tile_n=128, stages=2, resident=True)
DENSE = {
  '256': (dense.Config(), False),
  'cluster': (dense.Config(cluster=2), True),
  '128': (dense.Config(tile_n=128, stages=2), True),
  'resident': (RESIDENT, False),
  'resident, two buffers': (dataclasses.replace(RESIDENT, chunk=64, buffers=2), True),
}


@pytest.mark.conformance
@pytest.mark.parametrize('name', DENSE)
def test_products_with_epilogues(name):
  config, w_t = DENSE[name]
  x, w = multiples(0, T, K), multiples(1, F, K) if w_t else multiples(1, K, F)
  z = reference.up_compress(x, w, w_t)
  options = {'w_t': w_t, 'config': config}
  assert_same(run(dense.up_compress, x, w, **options), (z.values, z.metadata))
  g = multiples(2, T, K)
  slopes = run(dense.gated_backward, g, w, z.values, z.metadata, **options)
  assert_same(slopes, reference.gated_backward(g, w, z, w_t).values)


@pytest.mark.conformance
@pytest.mark.parametrize('rows', [448, 64])
def test_resident_weights_give_way_to_those_of_other_columns(rows):
  """Three columns of seven tiles for two CTAs; then of one, fewer than warpgroups."""
  x, w = multiples(0, rows, 128), multiples(1, 128, 384)
  z = reference.up_compress(x, w, False)
  config = dataclasses.replace(RESIDENT, buffers=2)
  values, metadata = run(dense.up_compress, x, w, config=config)
  assert_same((values, metadata[:, : rows // 64]), (z.values, z.metadata))
  slopes = run(dense.gated_backward, x, w, z.values, z.metadata, w_t=False, config=config)
  assert_same(slopes, reference.gated_backward(x, w, z, False).values)


@pytest.mark.parametrize(
  'fields', [{'resident': True, 'cluster': 2}, {'chunk': 64}, {'buffers': 2}]
)
def test_fields_of_the_other_kind_of_kernel_are_refused(fields):
  with pytest.raises(ValueError, match=f'{list(fields)[-1]}=.*: must be'):
    dense.Config(**fields)


@pytest.mark.conformance
def test_the_control_of_up_compress():
  x, w = multiples(0, T, K), multiples(1, K, F)
  h = jnp.matmul(x, w).astype(jnp.float32)
  expected = jnp.square(jnp.maximum(h, 0)).astype(jnp.bfloat16)
  assert_same(run(dense.up_compress, x, w, prune=False), expected)


@pytest.mark.conformance
@pytest.mark.parametrize('splits', [1, 2, 3])
def test_weight_gradient(splits):
  z = compress(multiples(0, T, F), activation='relu2')
  g, config = multiples(1, T, N), weight_gradient.Config(tile_n=128, splits=splits)
  out = run(weight_gradient.weight_gradient, z.values, z.metadata, g, config=config)
  assert_same(out, reference.weight_gradient(z, g, jnp.float32))


@pytest.mark.conformance
def test_the_control_of_gated_backward():
  g, w, h = multiples(0, T, K), multiples(1, F, K), multiples(2, T, F)
  z = reference.activate(h, 'relu2')
  dz = jnp.matmul(g, w.T).astype(jnp.float32)
  slope = 2 * jnp.sqrt(z.astype(jnp.float32)) * dz
  config = dense.Config(tile_n=128)
  assert_same(
    run(dense.gated_backward, g, w, z, None, config=config), slope.astype(z.dtype)
  )


@pytest.mark.conformance
@pytest.mark.parametrize('keep', [False, True])
@pytest.mark.parametrize(
  ('R', 'stages', 'cluster'),
  [(64, 2, 1), (192, 1, 1), (256, 1, 2)],
)
def test_feed_forward(R, stages, cluster, keep):
  s, up, down = multiples(0, T, R), multiples(1, R, 384), multiples(2, 384, 128)
  config = fused.Config(stages=stages, cluster=cluster, in_turns=R != 64)
  options = {'keep': keep, 'config': config}
  out, z = reference.feed_forward(s, up, down, True)
  expected = (out, z.values, z.metadata) if keep else out
  assert_same(run(fused.feed_forward, s, up, down, **options), expected)


@pytest.mark.conformance
def test_the_control_of_the_feed_forward():
  s, up, down = multiples(0, T, 64), multiples(1, 64, F), multiples(2, F, 128)
  h = jnp.matmul(s, up).astype(jnp.float32)
  y = jnp.square(jnp.maximum(h, 0)).astype(jnp.bfloat16)
  actual = run(fused.feed_forward, s, up, down, prune=False)
  assert_same(actual, jnp.matmul(y, down))


def test_a_race_is_found(monkeypatch):
  monkeypatch.setattr(plgpu, 'barrier_wait', lambda _: None)
  s, up, down = multiples(0, 128, 128), multiples(1, 128, 128), multiples(2, 128, 64)
  with pytest.raises(AssertionError):
    run(fused.feed_forward, s, up, down)
