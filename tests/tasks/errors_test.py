"""Networks on rows that cannot be are refused by name, before anything is written."""

import runpy

import pytest

from elas_jax.common.errors import UserError
from elas_jax.tasks import task_of
from elas_jax.train import train
from tests.tasks.networks import config_of, tiny

ERRORS = {
  'square': ('quadratic', 'model.quadratic_form', 'square', "model.quadratic_start='r"),
  'relinear': ('mlp', 'optimizer.relinear', 'gradients', "needs model.layer='quadratic'"),
  'gamma': ('quadratic', 'optimizer.relinear_g', 2.0, 'relinear_g=2.0: must be between'),
  'seed': ('mlp', 'data.draw_seed', -1, 'data.draw_seed=-1: must be between 0 and'),
  'grid': ('bspline', 'model.kan.grid', 0, 'model.kan.grid=0: must be at least 1'),
  'order': (
    'af_kan',
    'model.kan.order',
    9,
    'model.kan.order=9: must be at most model.kan.gri',
  ),
  'groups': ('gr_kan', 'model.rational_groups', 7, 'model.rational_groups=7: must'),
  'shape': ('mlp', 'model.input_shape', '(8,8)', r'model.input_shape=\(8, 8\): must'),
  'augment': ('mlp', 'data.augment', 'spin', "data.augment='spin': must be one of"),
  'layer': ('conv_mlp', 'model.layer', 'rational', "model.layer='rational': must be"),
  'optimizer': ('mlp', 'optimizer.name', 'loro', "optimizer.name='loro'"),
  'heads': ('vit', 'model.heads', 5, 'model.heads=5: must divide model.width=64'),
  'patch': ('vit', 'model.patch', 3, 'model.patch=3: must divide a side'),
}


@pytest.mark.parametrize(('argument', 'field', 'value', 'message'), ERRORS.values())
def test_bad_fields_are_named(argument, field, value, message):
  with pytest.raises(UserError, match=message):
    config_of('images', f'digits,{argument}', **{field: value})


@pytest.mark.parametrize(
  ('overrides', 'message'),
  [
    ({'data.source': 'mnist', 'data.path': '/nowhere'}, 'tfds build mnist'),
    ({'model.outputs': 11}, "model.outputs=11: must be 10 for data.source='digits'"),
    ({'model.input_shape': '(64,)'}, r'model.input_shape=\(64,\): must be \(8, 8, 1\)'),
    ({'task': 'regression'}, "task='regression': must be 'classification'"),
    ({'data.source': 'digit'}, "data.source='digit' is neither digits nor bessel"),
    (
      {'data.source': 'rings', 'data.examples': 2, 'data.validation_share': 0.1},
      'data.validation_share=0.1: leaves the validation split without rows',
    ),
  ],
)
def test_data_must_fit_the_network(overrides, message):
  config = config_of('images', 'digits,mlp', **overrides)
  with pytest.raises(UserError, match=message):
    task_of(config).prepare(config)


def test_decay_of_weights_must_not_overshoot():
  make = lambda factor: config_of(
    'images',
    'digits,quadratic',
    **{'optimizer.relinear': 'weights', 'optimizer.relinear_g': factor},
  )
  assert make(50.0).optimizer.learning_rate == 3e-3
  with pytest.raises(UserError, match='relinear_g=400.0: must be between 0 and 333.3'):
    make(400.0)


def test_what_regression_lacks_is_refused():
  with pytest.raises(UserError, match="train.z_loss=0.1: must be 0 with task='regression'"):
    config_of('functions', 'bessel,mlp', **{'train.z_loss': 0.1})


def test_a_batch_larger_than_the_rows_is_refused(tmp_path):
  config = tiny('images', 'digits,mlp', **{'data.batch_size': 2048})
  with pytest.raises(UserError, match='the train split has only 1437 rows; use a batch'):
    train(config, tmp_path)


@pytest.mark.parametrize('file', ['images', 'functions'])
def test_an_unknown_model_is_named(file):
  get_config = runpy.run_path(f'configs/{file}.py')['get_config']
  with pytest.raises(ValueError, match='must be .*MODEL'):
    get_config('digits,mlpp')
