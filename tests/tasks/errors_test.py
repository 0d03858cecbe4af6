"""Classifiers and regressors that cannot be are refused by name, and nothing is written."""

import runpy

import pytest

from elas_jax.common.errors import UserError
from elas_jax.tasks import task_of
from elas_jax.train import train
from tests.tasks.networks import config_of, tiny

ERRORS = {
  'square': ('quadratic', 'model.linear.form', 'square', "model.linear.start='r"),
  'relinear': (
    'mlp',
    'model.linear.relinear',
    'gradients',
    "no such field of model.linear='dense'; 'quadratic' has it",
  ),
  'gamma': ('quadratic', 'model.linear.relinear_g', 2.0, 'relinear_g=2.0: must be between'),
  'grid': ('bspline', 'model.linear.grid', 0, 'model.linear.grid=0: must be at least 1'),
  'order': (
    'af_kan',
    'model.linear.order',
    9,
    'model.linear.order=9: must be at most model.linear.gri',
  ),
  'source': ('mlp', 'data.source', 'digit', "data.source='digit': did you mean 'digits'"),
  'groups': ('gr_kan', 'model.linear.groups', 7, 'model.linear.groups=7: must'),
  'shape': ('mlp', 'model.input_shape', '(8,8)', r'model.input_shape=\(8, 8\): must'),
  'augment': ('mlp', 'data.augment', 'spin', "data.augment='spin': must be one of"),
  'layer': ('conv_mlp', 'model.linear', 'rational', "model.linear='rational': must be"),
  'optimizer': ('mlp', 'optimizer', 'loro', "optimizer='loro'"),
  'heads': (
    'vit',
    'model.architecture.attention.heads',
    5,
    'model.architecture.attention.heads=5: must divide model.width=64',
  ),
  'patch': (
    'vit',
    'model.architecture.patch',
    3,
    'model.architecture.patch=3: must divide a side',
  ),
}


@pytest.mark.parametrize(('argument', 'field', 'value', 'message'), ERRORS.values())
def test_bad_fields_are_named(argument, field, value, message):
  with pytest.raises(UserError, match=message):
    config_of('images', f'digits,{argument}', **{field: value})


@pytest.mark.parametrize(
  ('overrides', 'message'),
  [
    (
      {'data.source': 'tfds_images', 'data.source.data_dir': '/nowhere'},
      'tfds build mnist',
    ),
    ({'model.outputs': 11}, "model.outputs=11: must be 10 for data.source='digits'"),
    ({'model.input_shape': '(64,)'}, r'model.input_shape=\(64,\): must be \(8, 8, 1\)'),
    ({'task': 'regression'}, "task='regression': must be 'classification'"),
    (
      {'data.source': 'tfds_images', 'data.source.name': 'digit'},
      "data.source.name='digit': no TFDS set .* are digits, function, mnist1d, shape",
    ),
    (
      {
        'data.source': 'shape',
        'data.source.name': 'rings',
        'data.source.examples': 2,
        'data.source.validation_share': 0.1,
      },
      'data.source.validation_share=0.1: leaves the validation split without rows',
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
    **{'model.linear.relinear': 'weights', 'model.linear.relinear_g': factor},
  )
  assert make(50.0).optimizer.learning_rate == 3e-3
  with pytest.raises(UserError, match='relinear_g=400.0: must be between 0 and 333.3'):
    make(400.0)


def test_a_seed_of_points_below_0_is_refused():
  with pytest.raises(UserError, match='data.source.draw_seed=-1: must be between 0 and'):
    config_of('functions', 'rings,mlp', **{'data.source.draw_seed': -1})


def test_what_regression_lacks_is_refused():
  with pytest.raises(UserError) as error:
    config_of('functions', 'bessel,mlp', **{'train.objectives': 'z_loss'})
  assert str(error.value) == (
    "train.objectives.z_loss: task='regression' has no normaliser; must not be among "
    'train.objectives'
  )


def test_a_batch_larger_than_the_rows_is_refused(tmp_path):
  config = tiny('images', 'digits,mlp', **{'data.batch_size': 2048})
  with pytest.raises(UserError, match='the train split has only 1437 rows; use a batch'):
    train(config, tmp_path)


@pytest.mark.parametrize('file', ['images', 'functions'])
def test_an_unknown_model_is_named(file):
  get_config = runpy.run_path(f'configs/{file}.py')['get_config']
  with pytest.raises(ValueError, match='must be .*MODEL'):
    get_config('digits,mlpp')
