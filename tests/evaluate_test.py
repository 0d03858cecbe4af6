"""Evaluation: token-weighted means over a ragged split, against NumPy in float64."""

import dataclasses
import json
import math
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elas_jax.common.errors import UserError
from elas_jax.data.blocks import prepare
from elas_jax.evaluate import evaluate, main
from elas_jax.run.checkpoint import load_variables
from elas_jax.run.metrics import read_metrics
from elas_jax.run.sharding import make_mesh
from elas_jax.run.state import abstract_state
from elas_jax.run.workdir import open_run
from tests.conftest import thinned
from tests.programs import jit_logits


@pytest.fixture(scope='module')
def split(trained):
  """(variables, validation blocks, nll of every row, valid targets and bytes of it)."""
  config, workdir = trained
  mesh = make_mesh(config)
  abstract = abstract_state(config, mesh).variables
  variables = load_variables(workdir, abstract, None, 'workdir')
  blocks = prepare(config.data.source.corpus(config.data)).validation
  rows = blocks.read(np.arange(len(blocks)))
  inputs = jnp.asarray(rows['tokens'][:, :-1])
  logits = jit_logits(config.model, jax.device_get(variables), inputs, None)
  nll, size = [], []
  for row, tokens, valid in zip(np.float64(logits), rows['tokens'], rows['valid']):
    log_z = np.log(np.exp(row).sum(axis=-1))
    targets = tokens[1 : valid + 1]
    nll.append((log_z[:valid] - row[np.arange(valid), targets]).sum())
    size.append((targets < 256).sum())  # a byte each; the end of a document is none
  return variables, blocks, np.array(nll), rows['valid'], np.array(size)


def with_eval(config, **fields):
  return dataclasses.replace(config, eval=dataclasses.replace(config.eval, **fields))


@pytest.mark.parametrize(
  'batch_size, devices',
  thinned([(8, 4), (1, 1), (3, 1), (10**9, 4)], (8, 4), (3, 1)),
)
def test_equals_float64_over_every_valid_target(trained, split, batch_size, devices):
  config, (variables, blocks, nll, valid, size) = trained[0], split
  assert len(set(valid)) > 5
  assert len(blocks) % 8
  assert len(blocks) % 3
  config = with_eval(config, batch_size=batch_size)
  mesh = make_mesh(config, jax.devices()[:devices])
  result = evaluate(config, jax.device_get(variables), blocks, mesh)
  loss = nll.sum() / valid.sum()
  starts = range(0, len(blocks), batch_size)
  means = [nll[i : i + batch_size].sum() / valid[i : i + batch_size].sum() for i in starts]
  published = sum(means) / (len(means) + 1)
  expected = {
    'eval/loss': loss,
    'eval/perplexity': math.exp(loss),
    'eval/bits_per_byte': nll.sum() / size.sum() / math.log(2),
    'eval/tokens': valid.sum(),
    'eval/published_loss': published,
    'eval/published_perplexity': math.exp(published),
  }
  assert result.keys() == expected.keys()
  for name, value in expected.items():
    np.testing.assert_allclose(result[name], value, rtol=2e-6, err_msg=name)


def test_stops_after_the_batch_that_reaches_the_tokens(trained, split):
  config, (variables, blocks, nll, valid, _) = trained[0], split
  of_batches = [valid[i : i + 8].sum() for i in range(0, 24, 8)]
  result = evaluate(
    with_eval(config, units=int(sum(of_batches[:2])) - 1),
    variables,
    blocks,
    make_mesh(config),
  )
  assert result['eval/tokens'] == sum(of_batches[:2])
  np.testing.assert_allclose(
    result['eval/loss'], nll[:16].sum() / valid[:16].sum(), rtol=2e-6
  )


class WithoutTargets:
  """Blocks of which those of the first batch have no target."""

  lost_share = 0.0

  def __init__(self, blocks):
    self._blocks = blocks

  def __len__(self):
    return 16

  def read(self, indices):
    rows = self._blocks.read(indices)
    for name in ('valid', 'bytes'):
      rows[name] = np.where(np.asarray(indices) < 8, 0, rows[name])
    return rows


def test_batch_without_targets_counts_for_nothing(trained, split):
  config, (variables, blocks, nll, valid, _) = trained[0], split
  result = evaluate(config, variables, WithoutTargets(blocks), make_mesh(config))
  loss = nll[8:16].sum() / valid[8:16].sum()
  np.testing.assert_allclose(result['eval/loss'], loss, rtol=2e-6)
  np.testing.assert_allclose(result['eval/published_loss'], loss / 2, rtol=2e-6)


def test_text_that_the_tokenizer_does_not_know_is_said(trained, split):
  config, (variables, blocks, *_) = trained[0], split
  part = WithoutTargets(blocks)
  part.lost_share = 0.25
  result = evaluate(config, variables, part, make_mesh(config))
  assert result['eval/lost_share'] == 0.25


def test_command_repeats_the_last_evaluation_of_the_run(trained, capsys):
  _, workdir = trained
  _, lines = read_metrics(workdir)
  first, last = (
    {k: v for k, v in line.items() if not k.startswith('activations/')}
    for line in lines
    if 'eval/loss' in line
  )
  main([f'--workdir={workdir}'])
  assert json.loads((workdir / 'evaluation.json').read_text()) == last
  printed = capsys.readouterr().out
  assert f'{last["eval/perplexity"]:,.6g}' in printed
  assert str(workdir / 'evaluation.json') in printed
  main([f'--workdir={workdir}', '--step=4'])
  assert json.loads((workdir / 'evaluation.json').read_text()) == first
  assert first['step'] == 4


def test_command_prints_before_it_writes(trained, tmp_path, capsys):
  workdir = shutil.copytree(trained[1], tmp_path / 'run')
  (workdir / 'evaluation.json').unlink(missing_ok=True)
  (workdir / 'evaluation.json.tmp').mkdir()  # it cannot be written, not even by root
  with pytest.raises(UserError, match=r'run/evaluation.json: not written: Is a directory'):
    main([f'--workdir={workdir}'])
  _, lines = read_metrics(workdir)
  perplexity = [line['eval/perplexity'] for line in lines if 'eval/loss' in line][-1]
  printed = capsys.readouterr().out
  assert f'{perplexity:,.6g}' in printed
  assert 'written' not in printed
  assert not (workdir / 'evaluation.json').exists()


def test_file_has_null_for_infinity(trained, tmp_path, capsys, monkeypatch):
  workdir = shutil.copytree(trained[1], tmp_path / 'run')
  values = {'eval/loss': 800.0, 'eval/perplexity': math.inf}
  monkeypatch.setattr('elas_jax.evaluate.evaluate', lambda *_: values)
  main([f'--workdir={workdir}'])
  text = (workdir / 'evaluation.json').read_text()
  assert json.loads(text) == {'step': 8, 'eval/loss': 800.0, 'eval/perplexity': None}
  assert re.search(r'eval/perplexity +inf\n', capsys.readouterr().out)


@pytest.mark.usefixtures('four_devices')
@pytest.mark.parametrize(
  'arguments, message',
  [
    (['--step=5'], r'step=5.*checkpoints of steps \[4, 8\]'),
    (['--batch_size=6'], 'eval.batch_size=6: must be a multiple of 4'),
    (['--step=last'], "--step: 'last': must be an integer from 0"),
    (['--seed=1'], '--seed=1'),
  ],
)
def test_command_refuses(trained, arguments, message):
  with pytest.raises(UserError, match=message):
    main([f'--workdir={trained[1]}', *arguments])


def test_command_without_a_run(tmp_path):
  with pytest.raises(UserError, match='required: --workdir'):
    main([])
  with pytest.raises(UserError, match='--workdir=.*nothing.*no checkpoint'):
    main([f'--workdir={tmp_path / "nothing"}'])
  assert not (tmp_path / 'nothing').exists()


@pytest.mark.usefixtures('four_devices')
def test_training_batch_does_not_restrict_the_devices(trained, tmp_path):
  """A run with a batch of 6 on one device is evaluated on the four of this machine."""
  config, workdir = trained
  run = open_run(workdir, None, {'data.batch_size': 6, 'eval.batch_size': 4})
  assert run.mesh.shape['data'] == 4


def test_a_sample_longer_than_a_sequence_does_not_matter_here(trained):
  _, workdir = trained
  overrides = {'eval.sample_tokens': 10**4, 'eval.batch_size': 4}
  assert open_run(workdir, None, overrides).config.eval.sample_tokens == 0
