"""A fault planted in the emulated instruction is named; what failed is dumped."""

import functools
import os
import pathlib
import tarfile
import time

import numpy as np
import pytest

from pallas_kernels.bench import contact, diagnosis, one_hot
from pallas_kernels.bench.run import Run
from pallas_kernels.two_four import dispatch, mosaic
from pallas_kernels.two_four.packed import pack_nibbles

HERE = 'tests.pallas_kernels.diagnosis_test'
NAME = 'one-hot matmul, axis=1, transpose_b=False, cluster=1'
HALVES, ROWS = 'halves of the metadata swapped', 'rows of the metadata swapped'


def planted(name: str, variant: str):
  """Runs in a worker: an instruction that takes the halves the other way round."""
  from pallas_kernels.two_four.mosaic_gpu import emulation

  right = emulation.sparse_multiply
  swapped = lambda words: one_hot.halves_swapped(words.reshape(1, -1, 256))
  emulation.sparse_multiply = lambda acc, a, b, words, *more: right(
    acc, a, b, swapped(words), *more
  )
  diagnosis.check_one_hot = functools.partial(one_hot.check_one_hot, shape=(128, 128, 64))
  with dispatch.emulated():
    return diagnosis.run_variant(name, variant)


def compiles(name: str, seed: int):
  """Runs in a worker: what Mosaic GPU does with these variables."""
  assert os.environ['JAX_ENABLE_COMPILATION_CACHE'] == 'false'
  folder = pathlib.Path(os.environ['MOSAIC_GPU_DUMP_TO'])
  (folder / 'kernel.ptx').write_text(name)
  return {'passed': False}


@pytest.mark.conformance
def test_names_what_makes_it_right_and_dumps_what_failed(tmp_path, monkeypatch):
  monkeypatch.setenv('NPROC', '16')  # as for every emulation
  monkeypatch.setattr(diagnosis, 'RUN_VARIANT', f'{HERE}:planted')
  monkeypatch.setattr(diagnosis, 'RUN_CHECK', f'{HERE}:compiles')
  tried = {name: diagnosis.VARIANTS[name] for name in (HALVES, ROWS)}
  monkeypatch.setattr(diagnosis, 'VARIANTS', tried)
  with Run(tmp_path, seconds=600) as run:
    run.record['checks'] = {NAME: {'passed': False}, 'gradients-x': {'passed': False}}
    diagnosis.step(run, time.monotonic() + 500)
  found = run.record['diagnosis']
  assert found[NAME][HALVES]['passed'] and not found[NAME][ROWS]['passed']
  assert found[NAME][ROWS]['wrong_rows'] > 0
  step = run.record['steps']['diagnosis']
  assert step['verdict'] == f'right with: {HALVES}'
  assert f'| {HALVES} | right |' in (tmp_path / 'gpu_check.md').read_text()
  with tarfile.open(tmp_path / 'rest.tar.gz') as archive:
    names = archive.getnames()
    ptx = archive.extractfile('rest/dump_0_matmul/kernel.ptx').read().decode()
  assert ptx == NAME and 'rest/dump_1_gradients/kernel.ptx' in names
  assert step['dumped'][0] == f'dump_0_matmul: {NAME}, 1 files'


@pytest.mark.parametrize(
  ('verdicts', 'says'),
  [
    ({'stages=1': [True, True]}, 'right with: stages=1'),
    ({'stages=1': [True, False]}, 'right in part with: stages=1'),
    ({'stages=1': [False, False]}, 'none of 5 variants is right'),
  ],
)
def test_says_what_is_right_for_all_that_failed(verdicts, says):
  found = {
    name: {variant: {'passed': passed[i]} for variant, passed in verdicts.items()}
    for i, name in enumerate(('a', 'b'))
  }
  assert diagnosis.says(found) == says


def test_changes_of_the_metadata_are_those_of_its_format():
  """By the definition of a word: h is 16 entries, the high half of a word 8 rows."""
  nibbles = np.random.default_rng(0).integers(0, 16, (128, 64)).astype(np.uint32)
  words = pack_nibbles(nibbles)
  entries = nibbles.reshape(128, -1, 2, 4)[:, :, ::-1].reshape(128, 64)
  rows = nibbles.reshape(-1, 2, 8, 64)[:, ::-1].reshape(128, 64)
  same = lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
  same(one_hot.halves_swapped(words), pack_nibbles(entries))
  same(one_hot.rows_swapped(words), pack_nibbles(rows))


def test_a_one_hot_check_is_compiled_once(monkeypatch):
  """Both of its products are made by one program; by XLA in the kernel's place here."""
  traces = []

  def product(x, b, transpose_b, implementation):
    traces.append(implementation)
    return plain(x, b, transpose_b=transpose_b, implementation='xla')

  plain = one_hot.matmul
  monkeypatch.setattr(one_hot, 'matmul', product)
  for axis, turned in ((1, False), (0, True)):
    traces.clear()
    result = one_hot.check_one_hot(axis, turned, {}, shape=(64, 256, 16))
    assert result['passed'] and traces == ['mosaic']


def test_a_one_hot_check_says_where_it_is_wrong(monkeypatch):
  """Rows 8 and on of every 16 read the metadata of row 0 and on."""
  plain = one_hot.matmul
  monkeypatch.setattr(
    one_hot, 'matmul', lambda x, b, **_: plain(x, b, implementation='xla')
  )
  found = one_hot.check_one_hot(1, False, {}, 'rows', (64, 256, 16))
  assert not found['passed'] and found['wrong_rows'] > 0
  row, wanted, _ = found['first_rows'][0]
  assert wanted == (row * 37 + 5) % 256


def test_contact_has_both_clusters_in_every_layout():
  names = list(contact.contact(0))
  for cluster in (1, 2):
    assert sum(f', cluster={cluster}' in name for name in names) == 4
  assert 'matmul-M512-K384-N192-cluster=2' in names
  ops = {contact.op_of(name) for name in names}
  assert ops == {
    'matmul', 'compress', 'compress_both', 'up_compress', 'gated_backward',
    'weight_gradient', 'feed_forward', 'gradients',
  }  # fmt: skip


@pytest.mark.parametrize('op', ['up_compress', 'gated_backward'])
def test_contact_has_dense_products_with_resident_weights_and_with_streamed_ones(op):
  shapes = [name.split('-')[1:4] for name in contact.contact(0) if name.startswith(op)]
  sizes = [{part[0]: int(part[1:]) for part in shape} for shape in shapes]
  kinds = {mosaic.dense_config(x['F'], x.get('K', x.get('N'))).resident for x in sizes}
  assert kinds == {True, False}
