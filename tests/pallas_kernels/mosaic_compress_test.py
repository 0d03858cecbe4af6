"""The kernel that prunes and packs: in interpret mode, and its lowering for a GPU."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.pallas.mosaic_gpu.interpret import gpu_callbacks
from jax.experimental.pallas import mosaic_gpu as plgpu

from pallas_kernels.two_four.mosaic_gpu import compress as module
from pallas_kernels.two_four.mosaic_gpu.compress import Config, compress
from tests.conftest import thinned
from tests.pallas_kernels.packed_reference import packed_reference

AXES = {'features': [1], 'tokens': [0], 'both': [1, 0]}
CASES = list(itertools.product(AXES, ['top2', 'transposable'], [None, 'relu2']))


def check(y, along, rule, activation, config=None, **interpret):
  config = config or Config()
  names = {'along': along, 'rule': rule, 'activation': activation}
  with plgpu.force_gpu_interpret_mode(plgpu.InterpretGPUParams(**interpret)):
    packed = jax.block_until_ready(compress(y, config=config, emulate=True, **names))
  for pair, axis in zip(packed if along == 'both' else [packed], AXES[along]):
    for actual, expected in zip(pair, packed_reference(y, axis, rule, activation)):
      np.testing.assert_array_equal(actual, expected)


FEW = [('tokens', 'top2', None)]


@pytest.mark.parametrize(('along', 'rule', 'activation'), thinned(CASES, *FEW))
def test_equals_the_reference(along, rule, activation):
  y = jax.random.normal(jax.random.key(0), (128, 256), jnp.bfloat16)
  check(y, along, rule, activation)


@pytest.mark.parametrize(
  'config', thinned([Config(2, 1), Config(1, 2), Config(2, 3)], Config(2, 3))
)
def test_a_warpgroup_takes_many_tiles(config, monkeypatch):
  monkeypatch.setattr(module, 'cta_count', lambda do: 1)
  y = jax.random.normal(jax.random.key(1), (384, 384), jnp.bfloat16)
  check(y, 'both', 'top2', None, config, detect_races=True)
  assert not gpu_callbacks.get_races().races_found


@pytest.mark.parametrize(('along', 'rule', 'activation'), thinned(CASES, *FEW))
def test_lowers_for_a_gpu(along, rule, activation):
  f = functools.partial(compress, along=along, rule=rule, activation=activation)
  y = jax.ShapeDtypeStruct((16384, 8192), jnp.bfloat16)
  lowered = jax.jit(f).trace(y).lower(lowering_platforms=('cuda',))
  assert 'mosaic_gpu_v2' in lowered.as_text()
