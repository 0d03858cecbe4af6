"""Preference learning: the loss and its gradient by hand, and runs with their reference."""

import dataclasses
import functools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elas_jax import convert, evaluate, generate, measure
from elas_jax.common.errors import UserError
from elas_jax.common.paths import path_name
from elas_jax.config.parsing import parse
from elas_jax.config.schema import tree, tree_of_kind
from elas_jax.data.tokenizers import BytesTokenizer
from elas_jax.models.decoder import Decoder
from elas_jax.run.continuation import check_config, load_past
from elas_jax.run.conversion import Source, write_run
from elas_jax.run.state import abstract_state, init_variables, with_beside
from elas_jax.run.step import gradients
from elas_jax.run.workdir import open_run
from elas_jax.systems.feed_forwards import FEED_FORWARDS
from elas_jax.systems.kinds import room
from elas_jax.systems.linears import LINEARS
from elas_jax.systems.objectives import OBJECTIVES
from elas_jax.systems.preferences import PREFERENCES
from elas_jax.systems.tokenizers import TOKENIZERS
from elas_jax.tasks.preference import PREFERENCE
from elas_jax.tasks.task import REFERENCE, of_network
from elas_jax.train import train
from tests.conformance.hosts import batch, mesh_of, preference
from tests.conftest import thinned
from tests.finished_runs import computed, final_params, train_until


def drawn(config, seed=0, scale=0.3):
  """Parameters of some training, with those of other training as the reference."""
  random = np.random.default_rng(seed)
  draw = lambda p: jnp.asarray(p + scale * random.normal(size=p.shape), p.dtype)
  start = init_variables(config)
  now, before = (start | {'params': jax.tree.map(draw, start['params'])} for _ in range(2))
  return now | {'buffers': now['buffers'] | {REFERENCE: before}}


@functools.partial(jax.jit, static_argnums=0)
def logits_of(config, network, tokens_Bx2xM):
  inputs = tokens_Bx2xM[..., :-1].reshape(-1, tokens_Bx2xM.shape[-1] - 1)
  return Decoder(config.model).apply(network, inputs)[0]


def log_probabilities(config, variables, rows):
  """Of the answers, (B, 2), in float64, token by token; and their tokens."""
  logits = np.float64(logits_of(config, of_network(variables), rows['tokens']))
  chances = (np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)).reshape(-1, 2, 8, 17)
  found, tokens = np.zeros((2, len(rows['tokens']), 2))
  for pair, side, t in np.argwhere(rows['answers']):
    found[pair, side] += np.log(chances[pair, side, t, rows['tokens'][pair, side, t + 1]])
    tokens[pair, side] += 1
  return found, tokens


@functools.partial(jax.jit, static_argnums=0)
def passed(config, variables, rows):
  """(sums, weights, outputs, what the objectives add) of a pass."""
  seen = PREFERENCE.forward(config, variables, rows, jax.random.key(0), True)
  added = [one.loss(seen) for one in config.train.objectives]
  return seen.sums, seen.weights, seen.outputs, added


@functools.partial(jax.jit, static_argnums=0)
def gradients_of(config, variables, rows):
  return gradients(config, variables, rows, jax.random.key(0), jnp.int32(0))


def rows_of(config):
  rows = batch(config)
  rows['valid'][-1] = 0  # it only fills up the batch
  return rows


@jax.jit
def slopes_of(variables, rows, slopes_Bx2):
  """Gradient of the sum of slopes times log p of the answers, written anew."""

  def log_p(params):
    logits = logits_of(
      preference(), of_network(variables | {'params': params}), rows['tokens']
    )
    targets = rows['tokens'][..., 1:].reshape(-1, 8, 1)
    of_targets = jnp.take_along_axis(jax.nn.log_softmax(logits), targets, 2)
    return (of_targets.reshape(-1, 2, 8) * rows['answers']).sum(2)

  _, back = jax.vjp(log_p, variables['params'])
  return back(slopes_Bx2)[0]


def test_loss_and_metrics_are_those_of_a_loop_over_answers():
  """And an objective is a mean by the weights of a pair's tokens, which are 1 together."""
  loss = {
    'preference': PREFERENCES['dpo'](beta=0.7),
    'objectives': (OBJECTIVES['z_loss'](),),
  }
  config = preference(**loss)
  variables, rows = drawn(config), rows_of(config)
  sums, weights, outputs, (added,) = passed(config, variables, rows)
  ours, tokens = log_probabilities(config, variables, rows)
  theirs, _ = log_probabilities(config, variables['buffers'][REFERENCE], rows)
  counted = slice(0, 3)
  rewards = 0.7 * (ours - theirs)[counted]
  margin = rewards[:, 0] - rewards[:, 1]
  assert margin.min() < -0.01 and margin.max() > 0.01  # both kinds are there
  expected = {
    'loss': np.log1p(np.exp(-margin)).sum(),
    'count': 3,
    'correct': (margin > 0).sum(),
    'chosen_reward': rewards[:, 0].sum(),
    'rejected_reward': rewards[:, 1].sum(),
  }
  for name, value in expected.items():
    np.testing.assert_allclose(sums[name], value, rtol=1e-4, err_msg=name)
  values = PREFERENCE.eval_values(
    {name: np.array([float(x), 0.0]) for name, x in sums.items()}
  )
  np.testing.assert_allclose(values['accuracy'], np.mean(margin > 0), rtol=1e-6)
  np.testing.assert_allclose(values['margin'], margin.mean(), rtol=1e-4)
  assert values['pairs'] == 3
  of_pairs = np.asarray(weights).reshape(4, -1).sum(1)
  np.testing.assert_allclose(of_pairs, [1, 1, 1, 0], rtol=1e-6)
  assert outputs.shape == (8, 8, 17) and tokens.min() > 0
  squared_log_z = np.log(np.exp(np.float64(outputs)).sum(-1)) ** 2
  np.testing.assert_allclose(added, np.average(squared_log_z, weights=weights), rtol=1e-4)


def test_gradient_is_that_of_the_paper():
  """-beta sigmoid(r(rejected) - r(chosen)) (grad log p(chosen) - grad log p(rejected)).

  Section 4 of arXiv 2305.18290, here with the sigmoid of NumPy's float64 as a cotangent.
  """
  config = preference(preference=PREFERENCES['dpo'](beta=0.7))
  variables, rows = drawn(config), rows_of(config)
  found, _, _ = gradients_of(config, variables, rows)
  ours, _ = log_probabilities(config, variables, rows)
  theirs, _ = log_probabilities(config, variables['buffers'][REFERENCE], rows)
  margin = 0.7 * ((ours - theirs)[:, 0] - (ours - theirs)[:, 1])
  weight = 0.7 / (1 + np.exp(margin)) * rows['valid'] / 3
  slopes = np.stack([-weight, weight], 1).astype(np.float32)
  expected = slopes_of(variables, rows, slopes)
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6)
  jax.tree.map(close, found, expected)


def test_micro_batches_add_up_and_leave_the_reference():
  config = preference(preference=PREFERENCES['dpo'](beta=0.7))
  variables, rows = drawn(config), rows_of(config)
  loop = dataclasses.replace(config.train, accumulation=2)
  parts = dataclasses.replace(config, train=loop)
  whole, sums, buffers = gradients_of(config, variables, rows)
  split, sums_of_parts, kept = gradients_of(parts, variables, rows)
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
  jax.tree.map(close, split, whole)
  jax.tree.map(close, sums_of_parts, sums)
  same = np.testing.assert_array_equal
  jax.tree.map(same, buffers, variables['buffers'])
  jax.tree.map(same, kept, variables['buffers'])


MODELS = {
  'lora': {'linear': LINEARS['lora'](rank=2)},
  'sltrain': {'linear': LINEARS['sltrain'](rank=2)},
  'elas': {
    'linear': LINEARS['low_rank'](rank=2),
    'feed_forward': FEED_FORWARDS['relu2_two_four'](dense_steps=0),
  },
}


@pytest.mark.parametrize('name', thinned(MODELS, 'sltrain'))
def test_a_network_begins_as_its_reference(name):
  """Also where kernels are frozen, supports fixed, and activations pruned."""
  config = preference()
  model = dataclasses.replace(config.model, **MODELS[name])
  config = dataclasses.replace(config, model=model)
  variables = jax.jit(lambda: with_beside(config, init_variables(config)))()
  sums, *_ = passed(config, variables, batch(config))
  np.testing.assert_allclose(sums['loss'], 4 * np.log(2), rtol=1e-6)
  assert abs(sums['chosen_reward']) < 1e-5
  moments = abstract_state(config, mesh_of(config)).opt_state
  paths = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(moments)]
  assert paths and not any(REFERENCE in path for path in paths)


# --- runs ---

QUESTIONS = [(f'{n}+{n % 7}', n + n % 7) for n in range(60)]
COMMON = {
  'model': {
    'width': 16,
    'layers': 2,
    'feed_forward_width': 32,
    'unroll': 1,
    'linear': {'kind': 'low_rank', 'rank': 4},
    'attention': {'kind': 'mha', 'heads': 2},
  },
  'schedule': {'kind': 'constant', 'warmup_steps': 0},
  'checkpoint': {'every': 2, 'keep_latest': 9},
  'eval': {'every': 2, 'batch_size': 8},
}
LOOP = {'steps': 4, 'log_every': 1, 'compilation_cache': ''}


def run_config(folder, **fields):
  """Four steps of preference learning on sums, of the run in folder/before."""
  whole = COMMON | {
    'task': 'preference',
    'restore': str(folder / 'before'),
    'train': LOOP,
    'data': {
      'source': {'kind': 'pairs', 'path': str(folder / 'pairs'), 'validation_share': 0.2},
      'sequence_length': 32,
      'batch_size': 4,
      'cache_dir': str(folder / 'cache'),
    },
    'optimizer': {'kind': 'adamw', 'learning_rate': 0.01},
  }
  return parse(whole | fields)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """With `before`, a language run, `pairs`, and `run`, which was stopped and went on."""
  at = tmp_path_factory.mktemp('preference')
  (at / 'pairs').mkdir()
  lines = [
    {'prompt': sum_, 'chosen': f'{right}', 'rejected': f'{right + 1}'}
    for sum_, right in QUESTIONS
  ]
  (at / 'pairs/sums.jsonl').write_text(''.join(json.dumps(x) + '\n' for x in lines))
  config = parse(COMMON | {'train': LOOP})
  tokenizer = json.loads(BytesTokenizer().to_json())
  start = jax.jit(lambda: init_variables(config))()
  write_run(at / 'before', config, start, ({}, tokenizer, None), {})
  train_until(2, run_config(at), at / 'run')
  shutil.move(at / 'before', at / 'elsewhere')  # it is not needed any more
  train(run_config(at), at / 'run')
  shutil.move(at / 'elsewhere', at / 'before')
  return at


def test_a_resumed_run_is_the_uninterrupted_one(folder, tmp_path):
  train(run_config(folder), tmp_path / 'whole')
  assert computed(tmp_path / 'whole') == computed(folder / 'run')
  same = np.testing.assert_array_equal
  jax.tree.map(same, final_params(tmp_path / 'whole'), final_params(folder / 'run'))


def test_the_reference_is_what_the_run_started_from(folder):
  before = final_params(folder / 'before')
  same = np.testing.assert_array_equal
  for step in (2, 4):
    run = open_run(folder / 'run', step, {})
    jax.tree.map(same, run.variables['buffers'][REFERENCE], before)
    moved = jax.tree.map(
      lambda a, b: not np.array_equal(a, b), run.variables['params'], before['params']
    )
    assert any(jax.tree.leaves(moved))


def test_it_starts_at_log_2(folder):
  first = computed(folder / 'run')[0]
  assert first['train/loss'] == pytest.approx(np.log(2), rel=1e-6)
  assert abs(first['train/margin']) < 1e-6 and abs(first['train/chosen_reward']) < 1e-6


@pytest.mark.conformance
@pytest.mark.usefixtures('four_devices')
def test_it_goes_on_with_other_devices(folder, tmp_path):
  shutil.copytree(folder / 'run', tmp_path / 'run')
  longer = run_config(
    folder, train=LOOP | {'steps': 6}, mesh={'data': 1, 'fsdp': 2, 'tensor': 2}
  )
  train(longer, tmp_path / 'run')
  run = open_run(tmp_path / 'run', 6, {})
  before = final_params(folder / 'before')
  same = np.testing.assert_array_equal
  jax.tree.map(same, jax.device_get(run.variables['buffers'][REFERENCE]), before)


def test_an_evaluation_is_that_of_the_run(folder):
  evaluate.main([f'--workdir={folder / "run"}'])
  found = json.loads((folder / 'run/evaluation.json').read_text())
  last = [line for line in computed(folder / 'run') if 'eval/loss' in line][-1]
  for name in ('eval/loss', 'eval/accuracy', 'eval/margin'):
    assert found[name] == pytest.approx(last[name], rel=1e-5), name


@pytest.mark.conformance
def test_the_other_commands_take_it(folder, capsys):
  where = f'--workdir={folder / "run"}'
  generate.main([where, '--prompt=1+1', '--tokens=3'])
  measure.main([where, '--measures=spectrum'])
  assert 'layers/feed_forward/up' in capsys.readouterr().out


def test_a_converted_run_is_its_own_reference(folder):
  source = Source(open_run(folder / 'run', None, {}), False)
  assert REFERENCE not in source.given.variables['buffers']
  outputs, _ = source.given.outputs(
    source.config, source.given.variables, source.given.rows(64)
  )
  assert np.isfinite(outputs).all()


def test_what_becomes_of_the_reference_is_said(folder, tmp_path, capsys):
  flags = ['--converter=replace_activation', '--converter.activation=relu']
  made = [f'--workdir={folder / "run"}', f'--output={tmp_path / "made"}']
  convert.main([*made, *flags])
  assert 'that the run was compared with are left behind' in capsys.readouterr().out
  past = load_past(folder / 'run', '--workdir')
  (said,) = check_config(past, run_config(folder, restore='elsewhere'))
  assert said.startswith("restore='elsewhere': not looked at, the run goes on as it began")
  assert check_config(past, run_config(folder)) == []


def test_the_next_run_starts_from_what_it_learned(folder, tmp_path, capsys):
  """And leaves its reference behind: a round of ARIES. At last it answers."""
  sample = COMMON['eval'] | {'prompt': '1+1', 'sample_tokens': 2}
  before = {'restore': str(folder / 'run'), 'train': LOOP | {'steps': 1}, 'eval': sample}
  train(run_config(folder, **before), tmp_path / 'next')
  assert "--- sample, from '1+1'\n" in capsys.readouterr().out
  reference = open_run(tmp_path / 'next', None, {}).variables['buffers'][REFERENCE]
  learned = open_run(folder / 'run', None, {}).variables
  same = np.testing.assert_array_equal
  jax.tree.map(same, reference, of_network(learned))


def of_words(folder, place):
  """A run on pairs of words, with a tokenizer that only knows a few."""
  lines = [{'prompt': f'{n}', 'chosen': 'the', 'rejected': 'fox'} for n in range(40)]
  (place / 'words.jsonl').write_text(''.join(json.dumps(x) + '\n' for x in lines))
  (place / 'tokenizer').mkdir()
  tokenizer, _ = room(TOKENIZERS['file']).CASES(place / 'tokenizer')
  data = tree(run_config(folder).data)
  data['tokenizer'] = tree_of_kind(TOKENIZERS, tokenizer)
  data['source']['path'] = str(place / 'words.jsonl')
  return run_config(folder, data=data)


def test_errors_are_one_line(folder, tmp_path):
  with pytest.raises(UserError) as error:
    run_config(folder, restore='')
  assert str(error.value) == (
    "restore='': must be the workdir of a run, whose parameters task='preference' starts "
    'from and compares with'
  )
  with pytest.raises(UserError, match=r'^train.preference.beta=0.0: must be above 0'):
    run_config(folder, train=LOOP | {'preference': {'kind': 'dpo', 'beta': 0.0}})
  with pytest.raises(UserError, match=r'label_smoothing=0.5: must be at least 0 and below'):
    run_config(folder, train=LOOP | {'preference': {'kind': 'dpo', 'label_smoothing': 0.5}})
  with pytest.raises(UserError, match=r'^restore=.*is not the tokenizer there; give the'):
    train(of_words(folder, tmp_path), tmp_path / 'run')
  with pytest.raises(UserError, match=r'^restore=.*no checkpoint under'):
    train(run_config(folder, restore=str(tmp_path / 'none')), tmp_path / 'run')
