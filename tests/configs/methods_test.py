"""Every method of configs/methods.py trains; those with state beside parameters resume."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import default, methods
from elas_jax.config.cli import load_config
from elas_jax.config.config import at_step
from elas_jax.config.overrides import set_fields
from elas_jax.config.parsing import parse
from elas_jax.run.sharding import make_mesh
from elas_jax.run.state import create_state
from elas_jax.run.step import jit_train_step
from elas_jax.train import train
from tests.conftest import thinned
from tests.finished_runs import computed, train_until


def tiny(method):
  config = default.get_config(method)
  tiny = {
    'model.width': 32,
    'model.layers': 2,
    'model.unroll': 1,
    'model.feed_forward_width': 64,
    'data.sequence_length': 16,
    'data.batch_size': 4,
    'train.steps': 20,
    'mesh.data': 1,
    'eval.batch_size': 4,
    'optimizer.learning_rate': 0.02 if 'lor' in method or method == 'elas' else 0.01,
  }
  for section in ('model.linear', 'optimizer'):
    if 'rank' in functools.reduce(getattr, section.split('.'), config):
      tiny[f'{section}.rank'] = 8
  if 'restart_warmup_steps' in config.schedule:
    tiny['schedule.restart_warmup_steps'] = 1
  set_fields(config, tiny)
  return parse(config)


@pytest.mark.parametrize(
  ('flags', 'scale'),
  [
    ([], 1 / 4),
    (['model.linear.rank=64'], 1 / 2),
    (['model.width=512'], 1 / 16),
    (['model.width=512', 'model.linear.rank=64'], 1 / 8),
    (['optimizer.lazy_scale=0.3', 'model.width=512'], 0.3),
  ],
)
def test_lazy_steps_of_loro_follow_rank_and_width(flags, scale):
  config = load_config('configs/default.py:elas', [f'--config.{flag}' for flag in flags])
  assert parse(config).optimizer.lazy_scale == scale


@pytest.mark.parametrize('method', methods.METHODS)
def test_short_runs_have_periods_that_can_be(method):
  config = default.get_config(method)
  for steps in (2, 5, 12, 29, 54, 3_000):
    config.train.steps = steps
    schedule = parse(config).schedule
    if hasattr(schedule, 'restart_every'):
      every, most = max(steps // 5, 1), 10 if method == 'relora' else 5
      assert schedule.restart_every == every
      assert schedule.restart_warmup_steps == min(most, every - 1)


@pytest.mark.parametrize('method', thinned(methods.METHODS, 'elas'))
def test_loss_falls_on_a_repeated_batch(method):
  """20 steps, which hold a dense warm-up, exact steps, merges and new subspaces."""
  config = tiny(method)
  tokens = np.random.default_rng(0).integers(0, 40, (4, 17)).astype(np.int32)
  counts = jnp.full(4, 16, jnp.int32)
  batch = {'tokens': jnp.asarray(tokens), 'valid': counts, 'bytes': counts}
  mesh = make_mesh(config, jax.devices()[:1])
  steps, losses = {}, []
  with jax.set_mesh(mesh):
    state = create_state(config, mesh)
    for number in range(1, 21):
      now = at_step(config, number)
      if now not in steps:
        steps[now] = jit_train_step(config, mesh, now)
      state, metrics = steps[now](state, batch)
      losses.append(float(metrics['loss'] / metrics['count']))
  assert len(steps) == (2 if method.startswith('elas') else 1)
  assert np.all(np.isfinite(losses))
  assert losses[-1] < 0.8 * losses[0], losses


@pytest.mark.conformance
@pytest.mark.parametrize('rule', ['mvue', 'soft_activations'])
def test_stochastic_rules_resume_bit_equal(make_config, corpus, tmp_path, rule):
  """Stopped in the dense warm-up's last step, then continued."""
  elas = {
    'model.feed_forward': 'relu2_two_four',
    'model.feed_forward.recipe': rule,
    'model.feed_forward.recipe.backward': 'straight_through',
    'model.feed_forward.dense_steps': 2,
    'schedule.warmup_steps': 2,
    'checkpoint.every': 2,
    'train.steps': 8,
    'train.accumulation': 2,
    'eval.measures': 'activations',
  }
  if rule == 'soft_activations':
    elas['model.feed_forward.recipe.refresh'] = 3
  config = make_config(**elas)
  train(config, tmp_path / 'whole')
  for stop in (2, 8):
    train_until(stop, config, tmp_path / 'parts')
  assert computed(tmp_path / 'parts') == computed(tmp_path / 'whole')
  lines = [x for x in computed(tmp_path / 'whole') if 'activations/flip_rate' in x]
  assert [x['step'] for x in lines] == [5]
  assert {f'activations/flip_rate/{layer}' for layer in (0, 1)} <= lines[0].keys()
