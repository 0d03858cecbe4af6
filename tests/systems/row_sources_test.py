"""Kinds of data.source of classifiers and regressors: refusals, cases, and drawn values."""

import dataclasses
import types

import numpy as np
import pytest

from elas_jax.common.errors import UserError
from elas_jax.data import functions
from elas_jax.systems import kinds
from elas_jax.systems.row_sources import ROW_SOURCES, function, shape, tfds_images
from elas_jax.systems.row_sources.digits import Digits
from elas_jax.systems.row_sources.function import Function
from elas_jax.systems.row_sources.shape import Shape
from elas_jax.systems.row_sources.tfds_images import TfdsImages


def rows_of(source, cache_dir=''):
  source.check('data.source', None)
  return source.rows(types.SimpleNamespace(cache_dir=str(cache_dir)))


@pytest.mark.parametrize('name', ROW_SOURCES)
def test_cases_open(name, tmp_path):
  cases = kinds.room(ROW_SOURCES[name]).CASES
  cases = cases(tmp_path / 'sets') if callable(cases) else cases
  for source in cases:
    data = rows_of(source, tmp_path / 'cache')
    assert min(len(data.train), len(data.validation)) > 0
    assert data.record()['source'] == source.label()
    assert source.label() in source.shown()


def test_images_are_those_of_the_set(tmp_path):
  (source,) = tfds_images.CASES(tmp_path / 'sets')
  data = rows_of(source, tmp_path / 'cache')
  assert data.class_names == ('even', 'odd')
  row = data.validation.read(range(4))
  order = np.argsort(row['inputs'][:, 0, 0, 0])
  pixels = [8, 9, 10, 11]
  expected = np.array(pixels, np.float32) / 127.5 - 1
  np.testing.assert_array_equal(row['inputs'][order, 5, 5, 0], expected)
  assert row['targets'][order].tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize('source', [*function.CASES, *shape.CASES])
def test_values_are_those_of_the_formula(source):
  of_kind = kinds.room(source).truth
  data = rows_of(dataclasses.replace(source, noise=0.0))
  for split in (data.train, data.validation):
    # Inputs are stored in float32, in which values of steep functions move.
    expected = of_kind(source, split.inputs.astype(np.float64))
    np.testing.assert_allclose(split.targets, expected, rtol=2e-5, atol=2e-5)


def test_every_function_and_shape_has_a_case():
  assert {x.name for x in function.CASES} == set(functions.FUNCTIONS)
  assert {x.name for x in shape.CASES} == set(functions.SHAPES)


@pytest.mark.parametrize(
  ('source', 'message'),
  [
    (Digits(0.0), 'data.source.validation_share=0.0: must be between 0 and 1'),
    (Function('bassel'), "data.source.name='bassel': must be one of 'bessel', 'exp"),
    (Shape('bessel'), "data.source.name='bessel': must be one of 'rings', 'two_spirals'"),
    (Function(examples=1), 'data.source.examples=1: must be at least 2'),
    (Function(noise=-0.5), 'data.source.noise=-0.5: must be at least 0'),
    (Shape(draw_seed=-1), 'data.source.draw_seed=-1: must be between 0 and 4294967295'),
    (Shape(validation_share=1.0), 'data.source.validation_share=1.0: must be between 0'),
    (
      Function('mean_of_sines', examples=2**47),
      'data.source.examples=140737488355328: an array of data.source.examples x',
    ),
    (TfdsImages('mnist;rm'), "data.source.name='mnist;rm': accepted are names of"),
    (TfdsImages(data_dir='gs://x'), "data.source.data_dir='gs://x': gs:// addresses"),
  ],
)
def test_what_cannot_be_is_refused(source, message):
  with pytest.raises(UserError) as error:
    source.check('data.source', None)
  assert str(error.value).startswith(message)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  ('source', 'split'),
  [
    (Function(examples=2, validation_share=0.1), 'validation'),
    (Shape(examples=2, validation_share=0.9), 'train'),
  ],
)
def test_a_split_without_rows_is_refused(source, split):
  with pytest.raises(UserError, match=f'^data.source.validation_share=.*the {split} split'):
    rows_of(source)


@pytest.mark.parametrize('kind', [Function, Shape])
def test_points_that_no_memory_holds(kind):
  with pytest.raises(
    UserError, match='^data.source.examples=2147483647: needs at least .* GB'
  ):
    kind(examples=2**31 - 1).rows(None)
