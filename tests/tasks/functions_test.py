"""Networks on functions and shapes, through the same loop."""

import jax
import numpy as np
import pytest

from configs import functions
from elas_jax.data import functions as drawn
from elas_jax.run.evaluation import evaluate
from elas_jax.run.sharding import make_mesh
from elas_jax.run.state import create_state
from elas_jax.tasks import task_of
from tests.conftest import thinned
from tests.tasks.networks import tiny, trained

TASKS = (*functions.FUNCTIONS, *functions.SHAPES)


@pytest.mark.parametrize('task', thinned(TASKS, 'rings'))
def test_every_task_is_learnt(task):
  trained('functions', f'{task},fast')


@pytest.mark.parametrize('model', thinned(functions.MODELS, 'af_kan'))
def test_every_model_fits_a_function(model):
  trained('functions', f'exp_sin_square,{model}')


def test_regression_is_measured_as_numpy_does():
  config = tiny(
    'functions', 'product,fast', **{'eval.units': 0, 'data.source.examples': 300}
  )
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


def test_configs_know_the_functions():
  inputs = {name: function.inputs for name, function in drawn.FUNCTIONS.items()}
  assert inputs == functions.FUNCTIONS
  assert set(functions.SHAPES) == set(drawn.SHAPES)
