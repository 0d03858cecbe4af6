"""Rows: digits, sequences, drawn functions, and sets of TFDS."""

import io
import random
import shutil
import types

import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds
from scipy import special

from elas_jax.common.errors import UserError
from elas_jax.data import cache, functions, rows
from elas_jax.data.record import SPLITS
from elas_jax.systems.row_sources import ROW_SOURCES


def open_rows(kind, cache_dir='', **fields):
  if kind in ('function', 'shape'):
    fields = {'examples': 200} | fields
  source = ROW_SOURCES[kind](**fields)
  source.check('data.source', None)
  return source.rows(types.SimpleNamespace(cache_dir=str(cache_dir)))


def test_digits_are_split_by_their_pixels():
  data = open_rows('digits')
  train, held_out = ({x.tobytes() for x in s.inputs} for s in (data.train, data.validation))
  assert len(data.train) + len(data.validation) == 1797
  assert abs(len(data.validation) / 1797 - 0.2) < 0.002
  assert not train & held_out
  assert data.train.inputs.min() == -1
  assert data.train.inputs.max() == 1
  assert data.class_names == tuple('0123456789')
  again = open_rows('digits')
  np.testing.assert_array_equal(again.validation.targets, data.validation.targets)
  row = data.train.read([3, 0])
  np.testing.assert_array_equal(row['inputs'], data.train.inputs[[3, 0]])
  assert row['valid'].tolist() == [1, 1]


VALUES = {
  'bessel': ([0.3], special.jv(0, 6.0)),
  'exp_sin_square': ([0.5, 2.0], np.exp(1 + 4)),
  'product': ([3.0, -2.0], -6),
  'mean_of_sines': ([1.0] * 100, np.e),
  'sine_of_squares': ([0.5, 0.5, 0.5, 0.5], np.e),
  'runge': ([0.2], 0.5),
  'step': ([-0.3], -1),
}


@pytest.mark.parametrize('name', functions.FUNCTIONS)
def test_functions_have_their_values(name):
  point, value = VALUES[name]
  actual = functions.FUNCTIONS[name].formula(np.array([point]))
  np.testing.assert_allclose(actual, [value], rtol=1e-9)


def test_noise_is_of_the_train_split_alone():
  clean, noisy = (
    open_rows('function', name='product', noise=noise) for noise in (0.0, 0.5)
  )
  off = noisy.train.targets - clean.train.targets
  assert 0.3 < off.std() < 0.7
  np.testing.assert_array_equal(noisy.validation.targets, clean.validation.targets)
  assert len(clean.validation) == 40
  other = open_rows('function', name='product', draw_seed=1)
  assert not np.isin(other.train.inputs[:, 0], clean.train.inputs[:, 0]).any()
  assert not np.isin(clean.validation.inputs[:, 0], clean.train.inputs[:, 0]).any()


@pytest.mark.parametrize('shape', functions.SHAPES)
def test_shapes_have_two_classes_in_the_square(shape):
  data = open_rows('shape', name=shape)
  assert abs(data.train.inputs).max() <= 1
  assert np.bincount(data.train.targets).tolist() == [80, 80]
  # No line tells them apart: a linear fit stays near chance.
  x = np.c_[data.train.inputs, np.ones(len(data.train))]
  y = 2 * data.train.targets - 1
  weights, *_ = np.linalg.lstsq(x, y)
  assert ((x @ weights > 0) == (y > 0)).mean() < 0.75


# Of mnist1d_data.pkl in the repository of its authors (github.com/greydanus/mnist1d, commit
# 7878d96; the file is of 2021), whose float64 are rounded to float32.
SEQUENCES = {'train': 'c6e33a32636eb56a8abf', 'validation': '59fd3475f1df37017607'}


def test_sequences_are_those_of_the_published_file():
  data = open_rows('mnist1d')
  splits = data.record()['splits']
  assert {name: x['fingerprint'] for name, x in splits.items()} == SEQUENCES
  assert (len(data.train), len(data.validation)) == (4000, 1000)
  assert data.class_names == tuple('0123456789')
  x, y = (
    np.concatenate([getattr(split, name) for split in (data.train, data.validation)])
    for name in ('inputs', 'targets')
  )
  assert x.shape == (5000, 40, 1, 1)
  assert np.bincount(y).tolist() == [500] * 10
  np.testing.assert_allclose([x.mean(), x.std()], [0, 1], atol=1e-5)
  assert open_rows('mnist1d') is data  # drawn once


def test_the_generators_of_the_process_stay_where_they_are(monkeypatch):
  """The package seeds them, also where it fails half way."""

  def make_dataset():
    random.seed(42)
    np.random.seed(42)
    raise MemoryError

  monkeypatch.setattr('mnist1d.data.make_dataset', make_dataset)
  random.seed(1)
  np.random.seed(1)
  expected = random.random(), np.random.rand()
  random.seed(1)
  np.random.seed(1)
  with pytest.raises(MemoryError):
    rows.mnist1d.__wrapped__()  # less the cache
  assert (random.random(), np.random.rand()) == expected


class TinyImages(tfds.core.GeneratorBasedBuilder):
  """A set like MNIST."""

  VERSION = tfds.core.Version('1.0.0')
  label = tfds.features.ClassLabel(names=['cat', 'dog'])

  def _info(self):
    image = tfds.features.Image(shape=(4, 4, 3))
    features = tfds.features.FeaturesDict({'image': image, 'label': self.label})
    return tfds.core.DatasetInfo(builder=self, description='Tiny.', features=features)

  def _split_generators(self, _):
    return {'train': self._generate_examples(6), 'test': self._generate_examples(3)}

  def _generate_examples(self, count):
    for number in range(count):
      image, file = np.full((4, 4, 3), 10 * number + count, np.uint8), io.BytesIO()
      PIL.Image.fromarray(image).save(file, 'PNG')  # TFDS itself would need TensorFlow
      yield number, {'image': file.getvalue(), 'label': number % 2}


class NoLabels(TinyImages):
  label = tfds.features.Scalar(np.int64)


def build(builder, tmp_path):
  builder = builder(data_dir=tmp_path / 'tfds', file_format='array_record')
  builder.download_and_prepare(download_dir=tmp_path / 'downloads')


def test_a_set_of_tfds_is_decoded_once(tmp_path, monkeypatch):
  build(TinyImages, tmp_path)
  where = {'data_dir': str(tmp_path / 'tfds'), 'cache_dir': tmp_path / 'cache'}
  config = {'name': 'tiny_images'} | where
  for _ in range(2):
    data = open_rows('tfds_images', **config)
    found = sorted(
      (int(label), round(float(image[0, 0, 0] + 1) * 127.5))
      for label, image in zip(
        *(data.train.read(range(6))[k] for k in ('targets', 'inputs'))
      )
    )
    assert found == [(0, 6), (0, 26), (0, 46), (1, 16), (1, 36), (1, 56)]
    assert len(data.validation) == 3
    assert data.class_names == ('cat', 'dog')
    monkeypatch.setattr(tfds, 'builder_from_directory', None)  # not asked again


def test_a_set_without_labels_is_refused(tmp_path):
  build(NoLabels, tmp_path)
  where = {'data_dir': str(tmp_path / 'tfds'), 'cache_dir': tmp_path / 'cache'}
  config = {'name': 'no_labels'} | where
  with pytest.raises(UserError, match="has no 'image' with a 'label', only image, label"):
    open_rows('tfds_images', **config)


def test_record_follows_the_rows():
  first = open_rows('digits').record()
  assert open_rows('digits').record() == first
  assert first['splits']['validation']['rows'] == 360
  other = open_rows('digits', validation_share=0.3).record()
  assert other['splits'] != first['splits']
  drawn, noisy = (
    open_rows('function', name='product', noise=noise).record()['splits']
    for noise in (0.0, 0.5)
  )
  assert drawn['train'] != noisy['train']
  assert drawn['validation'] == noisy['validation']


def test_another_set_at_the_same_place_is_decoded_again(tmp_path, capsys, monkeypatch):
  where = {'data_dir': str(tmp_path / 'tfds'), 'cache_dir': tmp_path / 'cache'}
  config = {'name': 'tiny_images'} | where
  original = TinyImages._generate_examples

  def reordered(self, count):  # the files have the same sizes
    found = [row for _, row in original(self, count)]
    yield from enumerate(found[::-1])

  repeated = lambda self, count: original(self, 3)
  records = []
  for generate in (original, reordered, repeated):
    monkeypatch.setattr(TinyImages, '_generate_examples', generate)
    build(TinyImages, tmp_path)
    records.append(open_rows('tfds_images', **config).record())
    said = '3 of 3 rows of the validation split are equal to some of the train split'
    assert (said in capsys.readouterr().err) == (generate is repeated)
    shutil.rmtree(tmp_path / 'tfds')
  assert len({record['splits']['train']['fingerprint'] for record in records}) == 3


# What the first versions of the code had: a continued run knows its rows again.
FIRST = {
  'digits': ({}, '0e181496e5340f692ee3', '69148e6eb1a6cf3c443c'),
  'product': (
    {'examples': 50, 'noise': 0.25, 'draw_seed': 3},
    '55be0afd9b101c49a0f0',
    '7e270ec9ab592893963a',
  ),
  'rings': (
    {'examples': 50, 'noise': 0.25, 'draw_seed': 3},
    '1143caf6884075d2f67e',
    '7db6e6f4d3d854988afd',
  ),
}


@pytest.mark.parametrize(
  ('kind', 'name'), [('digits', 'digits'), ('function', 'product'), ('shape', 'rings')]
)
def test_rows_stay_what_they_were(kind, name):
  fields, *expected = FIRST[name]
  fields = fields if kind == 'digits' else fields | {'name': name}
  record = open_rows(kind, **fields).record()
  assert record['source'] == name
  assert [record['splits'][x]['fingerprint'] for x in SPLITS] == expected


def test_the_folder_of_decoded_rows_keeps_its_name(tmp_path, monkeypatch):
  folder = tmp_path / 'sets/images/1.0.0'
  folder.mkdir(parents=True)
  (folder / 'dataset_info.json').write_text('{"fileFormat": "array_record"}')
  (folder / 'features.json').write_text('{}')
  asked = []
  monkeypatch.setattr(
    cache, 'make_folder', lambda cache_dir, name, write: asked.append(name) or 1 / 0
  )
  with pytest.raises(ZeroDivisionError):
    open_rows('tfds_images', tmp_path, name='images', data_dir=str(tmp_path / 'sets'))
  assert asked == ['rows/bb0ab025dbc528a33956']
