"""Runs that version 1 has stored: networks on rows, and a language model with a z-loss.

`lora_vit` has what moves the most: frozen kernels without moments, and bfloat16 in some of
the arrays that have all the same dtype now.

tests/fixtures/README.md says what is there. The losses of vision transformers were computed
by flax's attention, so that these are the same within rounding.
"""

import json
import shutil

import jax
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from elas_jax.config.config import filled
from elas_jax.config.migrate import VERSION, lifted, moved_arrays
from elas_jax.run.continuation import load_past
from elas_jax.run.evaluation import evaluate
from elas_jax.run.metrics import read_metrics
from elas_jax.run.saved import context
from elas_jax.run.workdir import open_run
from elas_jax.train import train
from tests.conftest import ROOT, thinned
from tests.run.versions_test import close

FIXTURES = ROOT / 'tests/fixtures/version_1'
pytestmark = pytest.mark.usefixtures('four_devices')  # as they were recorded
EXPECTED = json.loads((FIXTURES / 'expected.json').read_text())['workdirs']


@pytest.fixture(scope='module')
def copied(tmp_path_factory):
  folder = shutil.copytree(FIXTURES, tmp_path_factory.mktemp('old') / 'version_1')
  shutil.copytree(ROOT / 'tests/fixtures/version_0/corpus', folder / 'corpus')
  return folder


@pytest.fixture
def here(copied, monkeypatch):
  """In a copy of all: the places in their configs are relative."""
  monkeypatch.chdir(copied)


def state_as_stored(name: str) -> dict:
  step = FIXTURES / name / 'checkpoints/6'
  here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  with context():
    found = ocp.checkpointables_metadata(step).metadata['state']['params']
    abstract = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here),
      found,
      is_leaf=lambda x: hasattr(x, 'shape'),
    )
    return ocp.load_checkpointables(step, {'state': {'params': abstract}})['state']


@pytest.mark.filterwarnings('ignore:Sharding info not provided')
def test_arrays_of_a_transformer_lie_stacked_and_without_heads(here):
  """Each against the array that is in the checkpoint, by hand."""
  run = open_run('vit', 6, {})
  now = run.variables['params']['network']
  old = state_as_stored('vit')['params']['network']
  layers, D, H = now['layers'], 8, 2
  same = np.testing.assert_array_equal
  same(now['position']['table'], old['positions'][0])
  same(now['patches']['kernel'], old['patches']['kernel'])
  for i in range(3):
    theirs = old[f'attention_{i}']
    for name in ('query', 'key', 'value'):
      kernel = layers['attention'][name]['kernel'][i]
      same(kernel.reshape(D, H, D // H), theirs[name]['kernel'])
      same(layers['attention'][name]['bias'][i], theirs[name]['bias'].reshape(-1))
    output = layers['attention']['output']
    same(output['kernel'][i].reshape(H, D // H, D), theirs['out']['kernel'])
    same(output['bias'][i], theirs['out']['bias'])
    for which in ('up', 'down'):
      same(layers['feed_forward'][which]['kernel'][i], old[f'{which}_{i}']['kernel'])
    for norm in ('attention', 'feed_forward'):
      same(layers[f'{norm}_norm']['scale'][i], old[f'norm_{norm}_{i}']['scale'])


@pytest.mark.parametrize('name', thinned(EXPECTED, 'vit'))
def test_a_run_of_version_1_is_what_it_was(here, name, capsys):
  expected = EXPECTED[name]
  run = open_run(name, 6, {'eval.units': 0})
  assert run.past.config['version'] == 1
  validation = run.prepared(('validation',)).validation
  values = evaluate(run.config, run.variables, validation, run.mesh)
  close({'step': run.step} | values, expected['evaluation_at_6'])

  last = train(load_past(name, '--workdir').parsed, name)
  rounded = 'arrays go from float32 to bfloat16' in capsys.readouterr().err
  assert rounded == (name == 'lora_vit')  # said where it happens, and nowhere else
  lines = [line for line in read_metrics(name)[1] if line['step'] > 6]
  losses = {str(x['step']): x['train/loss'] for x in lines if 'train/loss' in x}
  close(losses, expected['losses'])
  at_12 = expected['evaluation_at_12']
  close({name: last[name] for name in at_12}, at_12)
  for measured, value in expected.get('activations', {}).items():
    (found,) = [line[measured] for line in lines if measured in line]
    np.testing.assert_allclose(found, value, atol=1e-3)
  past = load_past(name, '--workdir')
  assert (past.step, past.config['version']) == (12, VERSION)
  assert past.parsed == run.past.parsed


def test_where_arrays_of_a_transformer_were():
  tree = {'version': 1, 'task': 'classification'}
  vit = {'model': {'architecture': {'kind': 'vit', 'heads': 2}}}
  moved = moved_arrays(tree | vit)
  assert moved('params/network/layers/attention/query/kernel', (2, 8, 8)) == [
    ('params/network/attention_0/query/kernel', (8, 2, 4)),
    ('params/network/attention_1/query/kernel', (8, 2, 4)),
  ]
  assert moved('opt_state/0/mu/network/layers/attention/output/bias', (1, 8)) == [
    ('opt_state/0/mu/network/attention_0/out/bias', (8,))
  ]
  assert moved('network/layers/feed_forward/up/rational/numerator', (1, 1, 6)) == [
    ('network/up_0/rational/numerator', (1, 6))
  ]
  assert moved('network/head/kernel', (8, 4)) == [('network/head/kernel', (8, 4))]
  assert moved_arrays(tree | {'model': {'architecture': {'kind': 'stack'}}}) is None
  assert moved_arrays(tree | vit | {'version': VERSION}) is None
  assert moved_arrays({'version': 1, 'task': 'language'}) is None


@pytest.mark.parametrize(
  'linear, where',
  [('dense', 'all'), ('rational', 'feed_forward'), ('kan_fast', 'feed_forward')],
)
def test_sections_of_a_transformer_are_lifted(linear, where):
  model = {
    'architecture': {'kind': 'vit', 'patch': 2, 'heads': 2},
    'linear': {'kind': linear},
    'activation': {'kind': 'gelu', 'approximate': False},
  }
  tree = {'version': 1, 'task': 'classification', 'model': model}
  found = filled(lifted(tree)).model
  vit = found.architecture
  assert (vit.patch, vit.attention.heads, vit.linear_in) == (2, 2, where)
  assert not vit.feed_forward.activation.approximate
  assert type(found.activation).__name__ == 'Identity'
  # A default of before: no activation between the maps.
  without = {'version': 1, 'task': 'classification', 'model': {'architecture': 'vit'}}
  vit = filled(lifted(without)).model.architecture
  assert type(vit.feed_forward.activation).__name__ == 'Identity'


def test_z_loss_is_an_objective_now():
  tree = {'version': 1, 'train': {'z_loss': 0.25}}
  (z_loss,) = filled(lifted(tree)).train.objectives
  assert (z_loss.coefficient, z_loss.schedule.warmup_steps) == (0.25, 0)
  assert filled(lifted({'version': 1, 'train': {'z_loss': 0.0}})).train.objectives == ()
