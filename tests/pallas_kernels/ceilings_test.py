"""Ceilings without a GPU: the kernels emulated, and what is made of their times."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.pallas.mosaic_gpu.interpret import gpu_callbacks
from jax.experimental.pallas import mosaic_gpu as plgpu

from pallas_kernels.bench import ceilings, programs, timing
from pallas_kernels.bench.workers import RUN_SECONDS
from pallas_kernels.two_four import compress
from pallas_kernels.two_four.mosaic_gpu import ceilings as kernels
from pallas_kernels.two_four.mosaic_gpu.instructions import Instructions
from tests.pallas_kernels.same import assert_same


def integers(seed: int, *shape: int) -> np.ndarray:
  return np.random.default_rng(seed).integers(-2, 3, shape)


def bfloat16(x: np.ndarray) -> jax.Array:
  return jnp.asarray(x, jnp.bfloat16)


def run(kernel, *operands, **options):
  """Emulated, with accesses to shared memory checked for races."""
  operands = jax.block_until_ready(operands)
  with plgpu.force_gpu_interpret_mode(plgpu.InterpretGPUParams(detect_races=True)):
    out = jax.block_until_ready(kernel(*operands, emulate=True, **options))
  assert not gpu_callbacks.get_races().races_found
  return out


def test_dense_is_so_many_products():
  a, b = integers(0, 128, 192), integers(1, 192, 256)
  out, clocks = run(kernels.dense, bfloat16(a), bfloat16(b), rounds=2)
  assert_same(out, np.stack(2 * [2.0 * a @ b]).astype(np.float32))
  assert clocks.shape == (2, 2)


@pytest.mark.parametrize('in_flight', [0, 1])
def test_sparse_is_so_many_products(in_flight):
  kept = np.tile([True, False, False, True, False, True, True, False], (128, 32))
  a, b = integers(0, 128, 256) * kept, integers(1, 256, 256)
  packed = compress(bfloat16(a), axis=1, implementation='xla')
  operands = packed.values, packed.metadata, bfloat16(b)
  out, clocks = run(kernels.sparse, *operands, rounds=3, in_flight=in_flight)
  assert_same(out, np.stack(2 * [3.0 * a @ b]).astype(np.float32))
  assert clocks.shape == (2, 2)


@pytest.mark.parametrize(('cluster', 'tiles'), [(1, (1, 2)), (2, (2, 1))])
def test_copies_end_with_the_last_step(cluster, tiles):
  """Nine steps of three different ones: the last is the last of them."""
  (rows, columns), do = tiles, Instructions(emulate=True)
  assert kernels.tiles(do, cluster) == tiles
  values, b = integers(0, 128 * rows, 192), integers(1, 384, 256 * columns)
  words = integers(2, 3, 2 * rows, 256).astype(np.uint32)
  operands = bfloat16(values), jnp.asarray(words), bfloat16(b)
  out = run(kernels.copies, *operands, steps=9, cluster=cluster)
  assert_same(out[0], bfloat16(np.hstack(columns * [values[:, 128:]])))
  assert_same(out[1], np.stack(columns * [words[2]]))
  assert_same(out[2], bfloat16(np.vstack(rows * [b[256:]])))
  assert out[3].shape == (*tiles, 2)
  with pytest.raises(ValueError, match='tiles, not'):
    kernels.copies(*operands, steps=9, cluster=3 - cluster, emulate=True)


@pytest.mark.parametrize(
  ('count', 'cluster', 'tiles'),
  [(132, 1, (22, 6)), (132, 2, (22, 6)), (114, 1, (19, 6)), (114, 2, (38, 3))],
)
def test_every_multiprocessor_has_a_tile(monkeypatch, count, cluster, tiles):
  monkeypatch.setattr(kernels, 'cta_count', lambda do: count)
  assert kernels.tiles(Instructions(), cluster) == tiles


# What is made of them.

STEPS, SMS = ceilings.STEPS, 10


def fake(out, clocks, bytes=0.0):
  """A kernel of two CTAs whose later warpgroups take these clocks a step."""
  took = jnp.array([[0, clocks * STEPS], [clocks * STEPS, 7]], jnp.int32)

  def function(x):
    if isinstance(out, Exception):
      raise out
    return out * x, took

  ones = np.ones(3)
  return ceilings.Ceiling(
    function, lambda exact: (jnp.ones(3),), lambda x: [ones], 1152.0, bytes, 'this'
  )


def measured(monkeypatch, skip=(), **changed):
  fakes = {
    ceilings.DENSE: fake(1.0, 2048),
    ceilings.WAITING: fake(1.0, 1200),
    ceilings.IN_FLIGHT: fake(1.1, 1),
    ceilings.COPIES: fake(1.0, 800, bytes=83968.0),
    ceilings.MULTICAST: fake(ValueError('no cluster'), 1),
  } | changed
  us = {'median': 1200.0, 'min': 1100.0, 'max': 1300.0}
  peaks = {
    'times': {'matmul': {'us': us}, 'copy': {'us': us}},
    'matmul_tflops': 50.0,
    'bandwidth_tb': 3.0,
  }
  notes = []
  monkeypatch.setattr(ceilings, 'ceilings', lambda: fakes)
  monkeypatch.setattr(ceilings, 'note', notes.append)
  monkeypatch.setattr(ceilings.kernels, 'cta_count', lambda do: SMS)
  monkeypatch.setattr(timing, 'measure_peaks', lambda repetitions, timer: peaks)
  monkeypatch.setattr(
    timing, 'in_turns', lambda calls, repetitions, timer: {n: {'us': us} for n in calls}
  )
  return ceilings.measure(3, 'wall', skip), notes


def test_rates_and_clocks(monkeypatch):
  record, notes = measured(monkeypatch)
  found = record['ceilings']
  dense = found[ceilings.DENSE]
  assert list(dict.fromkeys(notes)) == ['peaks', *found, 'timing']
  # 2 128 256 128 FLOPs a step, 1200 of them on 10 multiprocessors in 1200 us.
  assert dense['tflops'] == pytest.approx(8.388608e6 * 10 / 1e6, abs=0.1) == 83.9
  assert dense['of_xla_dense'] == 1.678
  assert (dense['clocks'], dense['ghz'], dense['error']) == (2048, 2.048, 0)
  copies = found[ceilings.COPIES]
  assert copies['tflops'] == 83.9
  assert (copies['tb_per_s'], copies['bytes_per_clock']) == (0.84, 105.0)
  assert found[ceilings.IN_FLIGHT] == {'failed': 'its result is wrong: error 0.1'}
  assert found[ceilings.MULTICAST] == {'failed': 'ValueError: no cluster'}


def test_a_kernel_that_hangs_costs_no_more_than_a_run(monkeypatch):
  told = []
  monkeypatch.setattr(programs, 'note', lambda *given: told.append(given))
  measured(monkeypatch)
  limits = {name: given for name, *given in told}
  assert limits[ceilings.WAITING] == limits[ceilings.COPIES] == [RUN_SECONDS]


def test_the_record_as_markdown(monkeypatch):
  text = ceilings.render(measured(monkeypatch)[0])
  times = '1200.0 | 1100.0 | 1300.0'
  rest = '84 | 1.68 | - | - | 1200 | 1152 | 1.20 | this |'
  assert f'| sparse products | {times} | {rest}' in text
  assert f'| XLA dense | {times} | 50 | 1.00 | - | - | - | - | - |' in text
  assert f'| copy | {times} | - | - | 3.00 | - | - | - | - |' in text
  assert '- sparse products in flight: its result is wrong' in text
  # 2048 / (1200 + 800), 2048 / 1200
  assert 'gains 1.02 where' in text and 'at most 1.71.' in text
  lines = [line for line in text.splitlines() if line.startswith('|')]
  assert len({line.count(' | ') for line in lines}) == 1


def test_what_is_left_out_and_what_fails_is_said(monkeypatch):
  record, notes = measured(monkeypatch, skip=['peaks', ceilings.DENSE, 'timing'])
  assert ceilings.DENSE not in notes and 'peaks' not in notes
  assert record['peaks'] == record['ceilings'][ceilings.DENSE] == {'failed': 'left out'}
  text = ceilings.render(record)
  assert '- dense products: left out' in text and '- peaks: left out' in text
  assert 'at most' not in text


def test_an_error_that_stays_ends_the_process(monkeypatch):
  broken = fake(RuntimeError('CUDA_ERROR_ILLEGAL_ADDRESS'), 1)
  with pytest.raises(RuntimeError, match='ILLEGAL'):
    measured(monkeypatch, **{ceilings.WAITING: broken})


def test_what_is_not_finite_is_wrong():
  error = lambda x: ceilings.error([np.array([x, 3.0])], [np.array([4.0, 3.0])])
  assert (error(4.0), error(3.0)) == (0, 0.2)
  assert error(np.inf) == np.inf and np.isnan(error(np.nan))
  with pytest.raises(ValueError, match='shape'):
    ceilings.error([np.ones(2)], [np.ones(3)])


def test_the_dry_run_knows_wrong_results(monkeypatch):
  one = lambda out: lambda steps, blocks: {'it': fake(out, 1)}
  monkeypatch.setattr(ceilings, 'ceilings', one(1.0))
  assert ceilings.dry_run() == ['it: emulated, equals NumPy']
  monkeypatch.setattr(ceilings, 'ceilings', one(1.25))
  with pytest.raises(AssertionError, match='it: error 0.25 where sums are exact'):
    ceilings.dry_run()
