"""How objectives are named, logged and said."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elas_jax.common.errors import UserError
from elas_jax.run import objectives
from elas_jax.run.checkpoint import steps
from elas_jax.run.log import Log
from elas_jax.run.metrics import MetricsWriter, read_metrics
from elas_jax.run.saved import Saved
from elas_jax.run.sharding import make_mesh
from elas_jax.run.state import abstract_state, abstract_variables
from elas_jax.run.workdir import open_run
from elas_jax.systems.objectives import OBJECTIVES
from elas_jax.systems.schedules import SCHEDULES
from elas_jax.tasks import LANGUAGE
from elas_jax.train import starting_state, train
from tests.conformance.hosts import language, network
from tests.finished_runs import computed, train_until
from tests.systems.objectives_test import walk


def with_objectives(config, *kinds):
  train = dataclasses.replace(config.train, objectives=kinds)
  return dataclasses.replace(config, train=train)


def test_means_and_changing_coefficients_are_logged(tmp_path, capsys):
  warm = SCHEDULES['constant'](warmup_steps=4)
  kinds = OBJECTIVES['z_loss'](), OBJECTIVES['l1_activations'](0.5, warm)
  config = with_objectives(language(), *kinds)
  y = jnp.stack([jnp.eye(4), 3 * jnp.eye(4)])  # of two layers, means 1/4 and 3/4
  seen = types.SimpleNamespace(
    sums={'count': 4.0, 'squared_log_z': jnp.float32(6.0)},
    count=4.0,
    sown={'activation': {'layers/feed_forward': y}},
    weights_of=lambda rows: jnp.ones(rows),
  )
  total, sums = objectives.added(config, seen, 1, {})
  assert float(total) == pytest.approx(1e-4 * 6 + 0.125 * 0.5 * 4)
  log = Log(
    MetricsWriter(tmp_path, 0, False),
    lambda step: 0.0,
    steps=6,
    start=0,
    log_every=1,
    task=LANGUAGE,
    unit_flops=1.0,
    peak_flops=None,
  )
  log.push(2, sums | {'loss': 8.0, 'count': 4.0, 'bytes': 4.0, 'grad_norm': 1.0})
  log.flush()
  log.close()
  (line,) = (x for x in read_metrics(tmp_path)[1] if 'train/loss' in x)
  assert {k: v for k, v in line.items() if 'objective' in k} == {
    'train/objective/z_loss': 1.5,
    'train/objective/l1_activations': 0.5,
    'train/objective/l1_activations/coefficient': 0.125,
  }
  assert 'l1_activations 0.5  times 1.25e-01  z_loss 1.5' in capsys.readouterr().out


def test_a_coefficient_may_fall_to_zero_or_be_zero():
  falling = {'warmup_steps': 0, 'decay_steps': 5, 'final_fraction': 0.01}
  wsd = SCHEDULES['wsd'](**falling, decay_shape='exponential')
  kind = OBJECTIVES['z_loss'](coefficient=0.0, schedule=wsd)
  assert [float(kind.coefficient_at(step, 10)) for step in (0, 9)] == [0, 0]
  kind = OBJECTIVES['z_loss'](coefficient=3.0, schedule=SCHEDULES['cosine'](0))
  assert float(kind.coefficient_at(5, 10)) == pytest.approx(3 * (0.1 + 0.9 / 2), rel=0.2)
  assert not kind.constant and OBJECTIVES['z_loss']().constant


CHUNKS = {
  'model.feed_forward': 'block',
  'model.feed_forward.experts': 4,
  'model.linear': 'dense',
  'train.accumulation': 2,
  'model.layers': 1,
  'train.steps': 12,
  'checkpoint.every': 12,
  'eval.every': 12,
  'train.objectives': {
    'chunk_sparsity': {'chunk': 8, 'hold_steps': 4, 'every': 2, 'coefficient': 0.5}
  },
}


def state_in(workdir, config):
  """All of the newest checkpoint."""
  step = max(steps(workdir, ''))
  return Saved(workdir / f'checkpoints/{step}').state(
    abstract_state(config, make_mesh(config))
  )


def test_what_is_kept_survives_a_stop_within_a_window(make_config, corpus, tmp_path):
  """Bit by bit, on four devices; and it follows from the losses that are logged."""
  config, whole, parts = make_config(**CHUNKS), tmp_path / 'whole', tmp_path / 'parts'
  train(config, whole)
  train_until(7, config, parts)  # the windows are of 5, 6 and of 7, 8
  (kept,) = state_in(parts, config).kept.values()
  assert float(kept['sum']) > 0 and float(kept['ratio']) != 1
  train(config, parts)
  assert computed(parts) == computed(whole)
  one, two = (state_in(folder, config) for folder in (whole, parts))
  jax.tree.map(np.testing.assert_array_equal, one, two)
  name = 'train/objective/chunk_sparsity'
  lines = [line for line in computed(whole) if name in line]
  expected = walk(config.train.objectives[0], [line[name] for line in lines])
  found = [line[f'{name}/coefficient'] for line in lines]
  assert len(found) == 12 and found[4] != found[0] == 0.5
  np.testing.assert_allclose(found, expected, rtol=1e-5)

  # The network is what it is without: it opens, and others start from it.
  own = jax.tree.structure(abstract_variables(config))
  for holder in (one, open_run(whole, None, {})):
    assert jax.tree.structure(holder.variables) == own
  fresh = types.SimpleNamespace(latest_step=None)
  for kinds in ({}, CHUNKS['train.objectives']):
    config = make_config(**CHUNKS | {'restore': str(whole), 'train.objectives': kinds})
    state = starting_state(config, make_mesh(config), fresh, None)
    np.testing.assert_array_equal(state.params['head'], one.params['head'])
    assert state.kept.keys() == kinds.keys()
    assert all(float(kept['factor']) == 1 for kept in state.kept.values())


def test_a_model_in_which_nobody_sows_is_refused():
  l1 = OBJECTIVES['l1_activations']()
  objectives.check(with_objectives(language(), l1))
  objectives.check(with_objectives(network(), OBJECTIVES['z_loss']()))
  with pytest.raises(UserError) as error:
    objectives.check(with_objectives(network(), l1))
  assert str(error.value) == (
    "train.objectives.l1_activations: no layer of this model gives away 'activation' "
    '(elas_jax/systems/sown.py); must not be among train.objectives'
  )
