"""Networks on rows, through the same loop as the language models."""

import functools
import itertools
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import functions, images
from elas_jax.cli import load_config
from elas_jax.config import parse
from elas_jax.data import functions as drawn
from elas_jax.errors import UserError
from elas_jax.evaluate import evaluate
from elas_jax.metrics import read_metrics
from elas_jax.sharding import make_mesh
from elas_jax.state import abstract_variables, create_state, parameter_count
from elas_jax.tasks import task_of
from elas_jax.train import jit_train_step, train

TASKS = (*functions.FUNCTIONS, *functions.SHAPES)
# At depth 1 the deeper residual networks are the shallowest.
SHALLOW = [x for x in images.models() if not x.endswith(('32', '44', '56'))]
PAIRS = [
  (file, ','.join(pair))
  for file, sets, models in (
    ('images', images.DATASETS, SHALLOW),
    ('functions', TASKS, functions.MODELS),
  )
  for pair in itertools.product(sets, models)
]


def config_of(file: str, argument: str, **overrides):
  flags = [f'--config.{name}={value}' for name, value in overrides.items()]
  return parse(load_config(f'configs/{file}.py:{argument}', flags))


tiny = functools.partial(
  config_of,
  **{
    'model.width': 8,
    'model.depth': 1,
    'data.batch_size': 8,
    'eval.batch_size': 64,
    'eval.tokens': 64,
    'train.steps': 20,
    'train.log_every': 5,
    'train.compilation_cache': '',
    'mesh.data': -1,
  },
)


def losses(config, steps=20, devices=1, rows=None):
  """Of steps on one batch, of the task's own rows."""
  mesh, task = make_mesh(config, jax.devices()[:devices]), task_of(config)
  if rows is None:
    rows = task.prepare(config).train.read(range(config.data.batch_size))
  state, step, found = create_state(config, mesh), jit_train_step(config, mesh), []
  with jax.set_mesh(mesh):
    for _ in range(steps):
      state, metrics = step(state, jax.tree.map(jnp.asarray, rows))
      found.append(float(metrics['loss'] / metrics['count']))
  return found


def drawn_rows(config):
  """Of the config's shapes: most sets are on no machine before someone prepares them."""
  generator = np.random.default_rng(0)

  def draw(name, array):
    if name == 'valid':
      return np.ones(array.shape, np.int32)
    if array.dtype == np.int32:
      return generator.integers(0, config.model.outputs, array.shape, np.int32)
    return generator.uniform(-1, 1, array.shape).astype(np.float32)

  rows = task_of(config).rows(config, config.data.batch_size)
  return {name: draw(name, array) for name, array in rows.items()}


def trained(file, argument, rows=None):
  flags = {'optimizer.learning_rate': 0.01, 'optimizer.warmup_steps': 1}
  config = tiny(file, argument, **flags)
  found = losses(config, rows=drawn_rows(config) if rows == 'drawn' else rows)
  assert np.isfinite(found).all()
  assert min(found[-3:]) < 0.95 * found[0]


@pytest.mark.parametrize(('file', 'argument'), PAIRS)
@pytest.mark.pairs
def test_every_pair_trains(file, argument):
  trained(file, argument, 'drawn')


# Every layer on one set, and every set with one stack and one ConvNet.
@pytest.mark.parametrize('dataset', images.DATASETS)
@pytest.mark.parametrize('model', ['gr_kan', 'conv_quadratic'])
def test_every_set_of_images_trains(dataset, model):
  trained('images', f'{dataset},{model}', 'drawn')


@pytest.mark.parametrize('model', SHALLOW)
def test_every_model_learns_a_batch_of_digits(model):
  trained('images', f'digits,{model}')


@pytest.mark.parametrize('task', TASKS)
def test_every_task_is_learnt(task):
  trained('functions', f'{task},fast')


@pytest.mark.parametrize('model', functions.MODELS)
def test_every_model_fits_a_function(model):
  trained('functions', f'exp_sin_square,{model}')


@pytest.mark.parametrize(
  ('model', 'count'),
  [
    ('mlp', 52_512),
    ('af_kan', 52_552),
    ('relu_kan', 316_842),
    ('fast', 459_114),
    ('bsrbf', 459_040),
    ('bspline', 508_160),
    ('faster', 408_224),
    ('chebyshev', 204_960),
  ],
)
def test_parameters_are_the_published_ones(model, count):
  config = config_of('images', f'mnist,{model}')
  assert parameter_count(abstract_variables(config)['params']) == count


def test_quadratic_layers_have_three_times_the_parameters():
  count = lambda model, **flags: parameter_count(
    abstract_variables(
      config_of('images', f'mnist,{model}', **{'model.norm': 'none'} | flags)
    )['params']
  )
  assert count('quadratic') == 3 * count('mlp', **{'model.use_bias': True})


def test_digits_are_told_apart(tmp_path):
  config = config_of(
    'images',
    'digits,af_kan',
    **{'train.steps': 300, 'train.compilation_cache': '', 'mesh.data': 1, 'mesh.fsdp': 4},
  )
  values = train(config, tmp_path)
  assert values['eval/accuracy'] >= 0.95
  assert values['eval/f1'] >= 0.95
  _, lines = read_metrics(tmp_path)
  assert lines[-1]['eval/accuracy'] == values['eval/accuracy']
  assert (tmp_path / 'plots' / 'accuracy.png').is_file()


def test_stopped_and_resumed_run_is_bit_equal(tmp_path):
  flags = {
    'model.norm': 'batch',
    'data.augment': 'flip_crop',
    'checkpoint.every': 3,
    'eval.every': 3,
    'train.log_every': 1,
    'optimizer.schedule': 'constant',
    'optimizer.warmup_steps': 1,
  }
  make = lambda steps: tiny('images', 'digits,mlp', **flags | {'train.steps': steps})
  train(make(6), tmp_path / 'whole')
  train(make(3), tmp_path / 'parts')
  train(make(6), tmp_path / 'parts')
  whole, parts = (read_metrics(tmp_path / name)[1] for name in ('whole', 'parts'))
  names = ('step', 'train/loss', 'train/accuracy', 'eval/loss', 'eval/accuracy')
  pick = lambda lines: [{k: x[k] for k in names if k in x} for x in lines]
  assert pick(whole) == pick(parts)


def test_four_devices_equal_one():
  config = tiny('images', 'digits,mlp', **{'model.norm': 'batch'})
  found = [losses(config, 3, devices) for devices in (1, 4)]
  np.testing.assert_allclose(*found, rtol=1e-5)


def test_evaluation_equals_numpy():
  """Also with a last batch that is filled up: 359 rows of validation in batches of 64."""
  config = tiny('images', 'digits,mlp', **{'eval.tokens': 0})
  task, mesh = task_of(config), make_mesh(config, jax.devices()[:1])
  data, state = task.prepare(config), create_state(config, mesh)
  values = evaluate(config, state.variables, data.validation, mesh)
  rows = data.validation.read(range(len(data.validation)))
  logits = np.asarray(task.module(config).apply(state.variables, rows['inputs']))
  shifted = np.exp(logits - logits.max(1, keepdims=True))
  p = shifted / shifted.sum(1, keepdims=True)
  true, chosen = rows['targets'], p.argmax(1)
  nll = -np.log(p[np.arange(len(p)), true]).mean()
  f1 = []
  for number in range(10):
    hits = ((true == number) & (chosen == number)).sum()
    f1.append(2 * hits / ((true == number).sum() + (chosen == number).sum()))
  assert values['eval/examples'] == len(rows['targets'])
  np.testing.assert_allclose(values['eval/loss'], nll, rtol=1e-5)
  np.testing.assert_allclose(values['eval/accuracy'], (true == chosen).mean(), rtol=1e-6)
  np.testing.assert_allclose(values['eval/f1'], np.mean(f1), rtol=1e-6)


def test_regression_is_measured_as_numpy_does():
  config = tiny('functions', 'product,fast', **{'eval.tokens': 0, 'data.examples': 300})
  task, mesh = task_of(config), make_mesh(config, jax.devices()[:1])
  data, state = task.prepare(config), create_state(config, mesh)
  values = evaluate(config, state.variables, data.validation, mesh)
  rows = data.validation.read(range(len(data.validation)))
  out = np.asarray(task.module(config).apply(state.variables, rows['inputs']))
  error = np.square(out - rows['targets']).mean()
  np.testing.assert_allclose(values['eval/loss'], error, rtol=1e-5)
  np.testing.assert_allclose(
    values['eval/r2'], 1 - error / rows['targets'].var(), rtol=1e-4
  )


ERRORS = {
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
  ],
)
def test_data_must_fit_the_network(overrides, message):
  config = config_of('images', 'digits,mlp', **overrides)
  with pytest.raises(UserError, match=message):
    task_of(config).prepare(config)


@pytest.mark.parametrize('file', ['images', 'functions'])
def test_an_unknown_model_is_named(file):
  get_config = runpy.run_path(f'configs/{file}.py')['get_config']
  with pytest.raises(ValueError, match='must be .*MODEL'):
    get_config('digits,mlpp')


def test_configs_know_the_functions():
  inputs = {name: function.inputs for name, function in drawn.FUNCTIONS.items()}
  assert inputs == functions.FUNCTIONS
  assert set(functions.SHAPES) == set(drawn.SHAPES)
