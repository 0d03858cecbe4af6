"""The train step and the loop: golden steps, accumulation, resume, divergence."""

import dataclasses
import json
import shutil
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elas_jax import train as train_module
from elas_jax.common.errors import UserError
from elas_jax.run import objectives
from elas_jax.run import step as step_module
from elas_jax.run.diverged import Diverged, step_of
from elas_jax.run.metrics import read_metrics
from elas_jax.run.sharding import make_mesh
from elas_jax.run.state import create_state, state_from
from elas_jax.run.step import train_step
from elas_jax.tasks.language import forward
from elas_jax.train import train
from tests.conftest import thinned
from tests.finished_runs import computed, final_params, train_until
from tests.programs import init_variables

KEY = jax.random.key(0)
gradients = jax.jit(step_module.gradients, static_argnums=0)


def batch_of(config, seed=0, ragged=False):
  random = np.random.default_rng(seed)
  rows, L = config.data.batch_size, config.data.sequence_length
  low = 1 if ragged else L
  return {
    'tokens': random.integers(0, 257, (rows, L + 1)).astype(np.int32),
    'valid': random.integers(low, L + 1, rows).astype(np.int32),
    'bytes': np.full(rows, L, np.int32),
  }


def test_steps_equal_recorded_pytorch(make_config, golden_model, golden):
  B, L = golden['tokens'].shape
  config = make_config(
    **golden_model
    | {
      'data.batch_size': B,
      'data.sequence_length': L - 1,
      'optimizer.learning_rate': 3e-3,
      'optimizer.embedding_rate': 0.0,
      'schedule': 'constant',
      'schedule.warmup_steps': 0,
      'optimizer.b1': 0.9,
      'optimizer.b2': 0.95,
      'optimizer.epsilon': 1e-8,
      'optimizer.weight_decay': 0.1,
      'optimizer.clip_norm': 1.0,
    }
  )
  state = state_from(
    config, {'params': jax.tree.map(jnp.asarray, golden['weights']), 'buffers': {}}
  )
  batch = {
    'tokens': golden['tokens'],
    'valid': np.full(B, L - 1, np.int32),
    'bytes': np.full(B, L - 1, np.int32),
  }
  step = jax.jit(lambda state: train_step(config, state, batch))
  for loss, norm in zip(golden['losses'], golden['gradient_norms']):
    state, metrics = step(state)
    np.testing.assert_allclose(metrics['loss'] / metrics['count'], loss, rtol=2e-4)
    np.testing.assert_allclose(metrics['grad_norm'], norm, rtol=1e-3)


@pytest.mark.conformance  # of elas, which this is, in configs/methods_test.py too
def test_loss_falls_on_a_repeated_batch(make_config):
  config = make_config(**{'optimizer.learning_rate': 1e-2, 'train.steps': 30})
  mesh = make_mesh(config, jax.devices()[:1])
  config_one = dataclasses.replace(config, mesh=dataclasses.replace(config.mesh, data=1))
  state = create_state(config_one, mesh)
  batch = batch_of(config)
  step = jax.jit(lambda state: train_step(config, state, batch))
  losses = []
  for _ in range(30):
    state, metrics = step(state)
    losses.append(float(metrics['loss'] / metrics['count']))
  assert losses[-1] < 0.8 * losses[0]
  assert int(state.step) == 30


def z_loss(coefficient, **more):
  return {'train.objectives': {'z_loss': {'coefficient': coefficient}, **more}}


@pytest.mark.parametrize('parts', thinned([2, 8], 2))
def test_accumulation_equals_one_pass(make_config, parts):
  config = make_config(**z_loss(1e-2, l1_activations={}))
  variables, batch = init_variables(config), batch_of(config, ragged=True)
  batch = jax.tree.map(jnp.asarray, batch)
  split = dataclasses.replace(
    config, train=dataclasses.replace(config.train, accumulation=parts)
  )
  whole_grads, whole, _ = gradients(config, variables, batch, KEY, 0)
  part_grads, sums, _ = gradients(split, variables, batch, KEY, 0)
  assert sums.keys() == whole.keys()
  for name in sums:
    np.testing.assert_allclose(sums[name], whole[name], rtol=1e-5)
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-6),
    part_grads,
    whole_grads,
  )


def test_targets_beyond_valid_do_not_count(make_config):
  config = make_config()
  variables, batch = init_variables(config), batch_of(config, ragged=True)
  other = dict(batch, tokens=batch['tokens'].copy())
  L = config.data.sequence_length
  for row, valid in zip(other['tokens'], batch['valid']):
    row[valid + 1 :] = 3
  put = lambda batch: jax.tree.map(jnp.asarray, batch)
  one, two = (gradients(config, variables, put(b), KEY, 0) for b in (batch, other))
  assert int(one[1]['count']) == batch['valid'].sum() < 8 * L
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-7), one, two)


def test_a_coefficient_has_its_own_schedule(make_config):
  warmup = {'schedule': {'kind': 'constant', 'warmup_steps': 4}}
  config = make_config(**{'train.objectives': {'z_loss': {'coefficient': 2.0} | warmup}})
  sums = {'count': 8.0, 'squared_log_z': jnp.float32(24.0)}
  seen = types.SimpleNamespace(sums=sums, count=8.0)
  for step, share in ((0, 0.0), (3, 0.75), (4, 1.0), (7, 1.0)):
    total, found = objectives.added(config, seen, step, {})
    assert float(total) == 2 * share * 24
    assert found == {'objective/z_loss': 24, 'objective/z_loss/coefficient': 16 * share}


@pytest.mark.conformance
def test_z_loss_pulls_the_normaliser_down(make_config):
  config = make_config(**z_loss(1.0))
  plain = make_config()
  variables, batch = init_variables(config), jax.tree.map(jnp.asarray, batch_of(config))
  grads, sums, _ = gradients(config, variables, batch, KEY, 0)
  plain_grads, plain_sums, _ = gradients(plain, variables, batch, KEY, 0)
  np.testing.assert_allclose(sums['loss'], plain_sums['loss'], rtol=1e-6)

  def log_z_term(params):
    sums = forward(config, variables | {'params': params}, batch, KEY, True).sums
    return sums['squared_log_z'] / sums['count']

  expected = jax.jit(jax.grad(log_z_term))(variables['params'])
  jax.tree.map(
    lambda x, y, z: np.testing.assert_allclose(x - y, z, rtol=1e-2, atol=1e-5),
    grads,
    plain_grads,
    expected,
  )


@pytest.mark.usefixtures('four_devices')
def test_stopped_and_resumed_run_is_bit_equal(make_config, corpus, tmp_path, capsys):
  # Stopped after the end of pruning: what it goes on with is dense, as the config is not.
  phases = {'': 'relu2_two_four', '.dense_steps': 2, '.pruned_steps': 1}
  phases = {f'model.feed_forward{name}': value for name, value in phases.items()}
  config = make_config(**{'eval.measures': 'activations'} | phases)
  train(config, tmp_path / 'whole')
  # Also those of an evaluation and a checkpoint, and of what compares with it.
  for stop in (4, 5):
    train_until(stop, config, tmp_path / 'parts')
    assert [line['step'] for line in computed(tmp_path / 'parts')][-1] == stop
    assert f'stopped after step {stop}' in capsys.readouterr().out
  train(config, tmp_path / 'parts')
  assert 'continuing after step 5' in capsys.readouterr().out
  assert computed(tmp_path / 'parts') == computed(tmp_path / 'whole')
  jax.tree.map(
    np.testing.assert_array_equal,
    final_params(tmp_path / 'parts'),
    final_params(tmp_path / 'whole'),
  )


@pytest.mark.usefixtures('plots')
def test_workdir_holds_what_the_readme_says(make_config, corpus, tmp_path):
  config = make_config(**{'train.tensorboard': True, 'profile_steps': '3,4'})
  last = train(config, tmp_path / 'run')
  folder = tmp_path / 'run'
  run, lines = read_metrics(folder)
  assert {'commit', 'versions', 'device', 'time'} <= run.keys()
  assert run['versions']['jax'] == jax.__version__
  assert json.loads((folder / 'config.json').read_text())['model']['linear']['rank'] == 8
  assert sorted(p.name for p in (folder / 'checkpoints').iterdir()) == ['4', '8']
  assert {p.suffix for p in (folder / 'plots').iterdir()} == {'.png'}
  assert list((folder / 'tensorboard').glob('events*'))
  assert list((folder / 'profile').rglob('*.xplane.pb'))
  train_lines = [line for line in lines if 'train/loss' in line]
  assert [line['step'] for line in train_lines] == list(range(1, 9))
  assert {
    'train/loss',
    'train/perplexity',
    'train/bits_per_byte',
    'train/grad_norm',
    'train/learning_rate',
    'train/tokens_per_second',
    'train/data_wait_share',
  } <= train_lines[-1].keys()
  evaluations = [line for line in lines if 'eval/loss' in line]
  assert [line['step'] for line in evaluations] == [4, 8]
  assert last == evaluations[-1]
  assert {'eval/perplexity', 'eval/bits_per_byte'} <= last.keys()


def test_diverging_run_stops_and_keeps_the_last_good_checkpoint(
  make_config, corpus, tmp_path, monkeypatch
):
  config = make_config(**{'checkpoint.every': 2})
  make = train_module.jit_train_step

  def poisoned(*arguments):
    step = make(*arguments)

    def then_spoilt(state, batch):
      new, metrics = step(state, batch)
      bad = np.nan if new.step == 5 else 1
      params = jax.tree.map(lambda x: x * bad, new.params)
      return dataclasses.replace(new, params=params), metrics

    return then_spoilt

  monkeypatch.setattr(train_module, 'jit_train_step', poisoned)
  with pytest.raises(Diverged, match='diverged at step 6.*checkpoint: step 4') as error:
    train(config, tmp_path / 'run')
  assert error.value.step == step_of(tmp_path / 'run') == 6
  kept = sorted(p.name for p in (tmp_path / 'run/checkpoints').iterdir())
  assert kept == ['2', '4']
  assert computed(tmp_path / 'run')[-1]['step'] == 5
  monkeypatch.undo()
  train(config, tmp_path / 'run')  # what was wrong is mended: it goes on
  assert step_of(tmp_path / 'run') is None


def test_full_disk_is_one_line_that_names_the_last_checkpoint(
  make_config, corpus, tmp_path, monkeypatch
):
  import errno

  from elas_jax.run.metrics import MetricsWriter

  original = MetricsWriter.write

  def write(self, step, values):
    if step == 7:
      raise OSError(errno.ENOSPC, 'No space left on device')
    original(self, step, values)

  monkeypatch.setattr(MetricsWriter, 'write', write)
  with pytest.raises(UserError, match='no space left.*checkpoint: step 4'):
    train(make_config(), tmp_path / 'run')
  monkeypatch.undo()
  train(make_config(), tmp_path / 'run')  # and it goes on from there
  assert computed(tmp_path / 'run')[-1]['step'] == 8


def test_restore_takes_parameters_only(make_config, corpus, tmp_path, capsys):
  first = make_config()
  train(first, tmp_path / 'first')
  second = make_config(restore=str(tmp_path / 'first'))
  train(second, tmp_path / 'second')
  assert 'starting from the parameters' in capsys.readouterr().out
  lines, before = computed(tmp_path / 'second'), computed(tmp_path / 'first')
  assert lines[0]['step'] == 1
  assert lines[0]['train/loss'] < before[0]['train/loss'] - 0.3
  # Its own checkpoints come first the next time.
  train(second, tmp_path / 'second')
  assert 'continuing after step 8' in capsys.readouterr().out


def test_checkpoint_of_another_model_names_the_parameter(make_config, corpus, tmp_path):
  train(make_config(), tmp_path / 'first')
  other = make_config(**{'model.linear.rank': 4, 'restore': str(tmp_path / 'first')})
  with pytest.raises(UserError, match=r"'layers/attention/key/a' is of shape \(2, 32, 8\)"):
    train(other, tmp_path / 'second')
  dense = make_config(**{'model.linear': 'dense', 'restore': str(tmp_path / 'first')})
  with pytest.raises(UserError, match='is of another model.*absent'):
    train(dense, tmp_path / 'third')


def test_another_config_does_not_continue_a_run(make_config, corpus, tmp_path):
  wsd = {'schedule': 'wsd'}
  train(make_config(**wsd), tmp_path / 'run')
  with pytest.raises(UserError, match=r'optimizer.learning_rate=0.5.*started with 0.002'):
    train(make_config(**wsd, **{'optimizer.learning_rate': 0.5}), tmp_path / 'run')
  with pytest.raises(UserError, match=r'schedule.warmup_steps=4: .* started with 2;'):
    train(make_config(**wsd, **{'schedule.warmup_steps': 4}), tmp_path / 'run')
  # Another kind is named as such, not by the fields that only one of both has.
  with pytest.raises(UserError, match="^schedule='cosine': .* started with 'wsd';"):
    train(make_config(), tmp_path / 'run')


@pytest.mark.conformance
def test_more_steps_and_what_follows_from_them_continue_a_run(
  make_config, corpus, tmp_path
):
  wsd = {'schedule': 'wsd'}
  train(make_config(**wsd), tmp_path / 'run')
  longer = {'train.steps': 20, 'schedule.warmup_steps': 4, 'schedule.decay_steps': 8}
  train(make_config(**wsd, **longer), tmp_path / 'run')
  assert computed(tmp_path / 'run')[-1]['step'] == 20


def test_a_workdir_without_a_checkpoint_takes_another_config(make_config, corpus, tmp_path):
  rank = {'model.linear.rank': 4}
  missing = make_config(restore=str(tmp_path / 'nowhere'), **rank)
  with pytest.raises(UserError, match='restore='):
    train(missing, tmp_path / 'run')
  train(make_config(), tmp_path / 'run')
  assert computed(tmp_path / 'run')[-1]['step'] == 8


@pytest.mark.conformance
def test_bf16_parameters_train(make_config):
  low = {'model.param_dtype': 'bfloat16', 'model.compute_dtype': 'bfloat16'}
  config = make_config(**low, **{'optimizer.learning_rate': 1e-2, 'train.steps': 30})
  state = state_from(config, init_variables(config))
  batch = jax.tree.map(jnp.asarray, batch_of(config))
  grads, _, _ = gradients(config, state.variables, batch, KEY, 0)
  assert {x.dtype for x in jax.tree.leaves(grads)} == {jnp.dtype('float32')}
  wide = dataclasses.replace(
    config, model=dataclasses.replace(config.model, compute_dtype='float32')
  )
  expected, _, _ = gradients(wide, state.variables, batch, KEY, 0)
  flat = lambda tree: np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])
  error = np.linalg.norm(flat(grads) - flat(expected)) / np.linalg.norm(flat(expected))
  assert error < 0.03
  step = jax.jit(lambda state: train_step(config, state, batch))
  losses = []
  for _ in range(30):
    state, metrics = step(state)
    losses.append(float(metrics['loss'] / metrics['count']))
  assert losses[-1] < 0.8 * losses[0]
  assert state.params['embedding'].dtype == jnp.bfloat16


def test_nonfinite_evaluation_or_parameters_are_not_saved(
  make_config, corpus, tmp_path, monkeypatch
):
  original = train_module.evaluate

  def broken(config, params, blocks, mesh):
    return original(config, params, blocks, mesh) | {'eval/loss': float('nan')}

  monkeypatch.setattr(train_module, 'evaluate', broken)
  with pytest.raises(UserError, match='step 4: eval/loss=nan; no checkpoint yet'):
    train(make_config(), tmp_path / 'one')
  monkeypatch.undo()
  monkeypatch.setattr(train_module, 'all_finite', lambda params: False)
  with pytest.raises(UserError, match='step 2: parameters are not finite; no checkpoint'):
    train(make_config(**{'checkpoint.every': 2}), tmp_path / 'two')


@pytest.mark.conformance
def test_profile_window_survives_a_resume_inside_it(make_config, corpus, tmp_path):
  train_until(4, make_config(), tmp_path / 'run')
  train(make_config(profile_steps='3,6'), tmp_path / 'run')
  assert list((tmp_path / 'run/profile').rglob('*.xplane.pb'))


@pytest.mark.parametrize('size', [100, 257])
def test_vocabulary_must_hold_the_tokenizer(make_config, corpus, tmp_path, size):
  config = make_config(**{'model.vocab_size': size})
  if size == 257:
    train(config, tmp_path / 'run')
    return
  with pytest.raises(UserError, match='model.vocab_size=100: must be at least 257'):
    train(config, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


def test_corpus_shorter_than_a_batch_is_refused(make_config, corpus, tmp_path):
  with pytest.raises(UserError, match='data.batch_size=4096'):
    train(make_config(**{'data.batch_size': 4096}), tmp_path / 'run')


@pytest.mark.parametrize(
  'content', thinned([b'', b'{"model": {"wid', b'\xf5'], b'{"model": {"wid')
)
def test_damaged_config_json_is_named_and_written_anew(trained, tmp_path, content, capfd):
  """It is for readers: what a run goes on with is compared with its checkpoint."""
  config, before = trained
  workdir = shutil.copytree(before, tmp_path / 'run')
  good = (workdir / 'config.json').read_bytes()
  (workdir / 'config.json').write_bytes(content)
  train(config, workdir)
  assert f'{workdir}/config.json is damaged (' in capfd.readouterr().err
  assert (workdir / 'config.json').read_bytes() == good
