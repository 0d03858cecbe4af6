"""Classifiers and regressors, through the same loop and commands as the language models."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elas_jax.common.errors import UserError
from elas_jax.evaluate import main as evaluate_run
from elas_jax.generate import main as generate_run
from elas_jax.ops.augment import AUGMENTATIONS
from elas_jax.run.dry_run import dry_run
from elas_jax.run.evaluation import evaluate
from elas_jax.run.metrics import read_metrics
from elas_jax.run.sharding import make_mesh
from elas_jax.run.state import abstract_variables, create_state, parameter_count
from elas_jax.tasks import task_of
from elas_jax.train import train
from tests.tasks.networks import config_of, losses, tiny


@pytest.mark.conformance
@pytest.mark.usefixtures('plots')
def test_digits_are_told_apart(tmp_path):
  config = config_of(
    'images',
    'digits,af_kan',
    **{
      'train.steps': 150,
      'optimizer.learning_rate': 0.03,
      'train.compilation_cache': '',
      'mesh.data': 1,
      'mesh.fsdp': 4,
    },
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
    'schedule': 'constant',
    'schedule.warmup_steps': 1,
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
  config = tiny('images', 'digits,mlp', **{'eval.units': 0})
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


def test_each_image_is_turned_or_not():
  x = jnp.broadcast_to(jnp.arange(8.0)[None, None, :, None], (16, 8, 8, 1))
  y = np.asarray(jax.jit(AUGMENTATIONS['flip_crop'])(jax.random.key(0), x))
  rising = np.diff(y[:, 4, 4:6, 0], axis=1) > 0  # the middle is of the image itself
  assert 0 < rising.sum() < 16
  assert len({row.tobytes() for row in y}) > 8  # each is cropped by itself
  assert set(np.unique(y)) <= {-1.0, *map(float, range(8))}


def test_commands_on_the_folder_of_a_classifier(tmp_path, capsys):
  config = tiny('images', 'digits,mlp')
  values = train(config, tmp_path / 'run')
  evaluate_run([f'--workdir={tmp_path / "run"}', '--tokens=64'])
  assert f'{values["eval/accuracy"]:.2%}' in capsys.readouterr().out
  with pytest.raises(UserError, match="its task is 'classification'; must be the fol"):
    generate_run([f'--workdir={tmp_path / "run"}'])
  found = dry_run(config)
  assert found['parameters'] == parameter_count(abstract_variables(config)['params'])
  again = config_of('images', 'digits,mlp', restore=str(tmp_path / 'run'))
  again = dataclasses.replace(
    config, restore=again.restore, train=dataclasses.replace(config.train, steps=1)
  )
  train(again, tmp_path / 'next')
  _, lines = read_metrics(tmp_path / 'next')
  _, before = read_metrics(tmp_path / 'run')
  first = next(line for line in lines if 'train/loss' in line)
  assert first['train/loss'] < before[0]['train/loss']
