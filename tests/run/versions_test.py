"""Runs that older versions of the code have stored: what these made of them, this makes.

tests/fixtures/README.md says what is there. Bits are those of one processor, one set of
versions and one compiler: there everything is compared exactly, elsewhere within the
tolerance of `close`, and the checksums of trained parameters not at all.
"""

import contextlib
import functools
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata

import jax
import numpy as np
import pytest

from elas_jax.common.errors import UserError
from elas_jax.common.paths import path_name
from elas_jax.config.config import to_json
from elas_jax.config.migrate import VERSION
from elas_jax.config.parsing import parse_stored
from elas_jax.models.sampling import generate
from elas_jax.run.continuation import load_past
from elas_jax.run.evaluation import evaluate
from elas_jax.run.metrics import read_metrics
from elas_jax.run.saved import Saved
from elas_jax.run.workdir import open_run
from elas_jax.train import main, train
from tests.conftest import OLDER_EMITTERS, ROOT, thinned, tiny_config
from tests.finished_runs import drop_items, final_params

FIXTURES = ROOT / 'tests/fixtures/version_0'
pytestmark = pytest.mark.usefixtures('four_devices')  # as they were recorded
RECORDED = json.loads((FIXTURES / 'expected.json').read_text())
WORKDIRS = RECORDED['workdirs']
# What made `elas`, in the names of today.
ELAS = {
  'model.vocab_size': 257,
  'model.width': 16,
  'model.layers': 2,
  'model.attention.heads': 2,
  'model.feed_forward_width': 32,
  'model.linear.rank': 4,
  'data.source': 'text_files',
  'data.source.path': 'corpus',
  'data.source.validation_share': 0.2,
  'data.tokenizer': 'bytes',
  'data.sequence_length': 32,
  'data.processes': 1,
  'data.batch_size': 4,
  'data.cache_dir': 'cache',
  'data.read_threads': 1,
  'schedule.warmup_steps': 2,
  'schedule.restart_warmup_steps': 1,
  'train.steps': 12,
  'train.log_every': 1,
  'train.compilation_cache': '',
  'checkpoint.every': 6,
  'eval.every': 6,
  'eval.units': 0,
  'eval.batch_size': 8,
  'eval.sample_tokens': 0,
  'optimizer.exact_every': 4,
  'optimizer.learning_rate': 0.05,
  'model.feed_forward.dense_steps': 3,
}


# What the older emitters of fused loops, which compile sooner, round otherwise.
ROUNDED_OTHERWISE = ('kat', 'selectable_kan')


@functools.cache
def rounds_as_recorded() -> bool:
  """Whether two runs evaluate to the bits of the fixture: several processors have its name.

  Where one does not, all are held to the tolerance of another machine.
  """
  with tempfile.TemporaryDirectory() as folder:
    shutil.copytree(FIXTURES, folder, dirs_exist_ok=True)
    with contextlib.chdir(folder):
      return all(map(_evaluates_as_recorded, ('kan_classifier', 'sltrain')))


def _evaluates_as_recorded(name: str) -> bool:
  run = open_run(name, 6, {'eval.units': 0})
  validation = run.prepared(('validation',)).validation
  values = {'step': run.step} | evaluate(run.config, run.variables, validation, run.mesh)
  return values == WORKDIRS[name]['in_tests']['evaluation_at_6']


def as_recorded(name: str) -> bool:
  """Whether this computes the bits of the fixture's processor, versions and compiler."""
  if name in ROUNDED_OTHERWISE and OLDER_EMITTERS:
    return False
  cpuinfo = pathlib.Path('/proc/cpuinfo')
  lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
  names = {line.partition(': ')[2] for line in lines if line.startswith('model name')}
  versions = {name: metadata.version(name) for name in RECORDED['versions']}
  like = names == {RECORDED['processor']} and versions == RECORDED['versions']
  return like and rounds_as_recorded()


def close(found: dict, expected: dict) -> None:
  """Where rounding differs: one pruned entry or one example more or less is nothing."""
  assert found.keys() == expected.keys()
  for name, value in expected.items():
    np.testing.assert_allclose(found[name], value, rtol=5e-3, atol=0.01, err_msg=name)


def assert_recorded(name: str, found: dict, expected: dict) -> None:
  if as_recorded(name):
    assert found == expected
  else:
    close(found, expected)


def sha256(tree) -> str:
  """Of the bytes of all arrays, in the order of their paths."""
  leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(tree))
  arrays = sorted((path_name(path), np.asarray(leaf)) for path, leaf in leaves)
  return hashlib.sha256(b''.join(array.tobytes() for _, array in arrays)).hexdigest()


@pytest.fixture(scope='module')
def copied(tmp_path_factory):
  return shutil.copytree(FIXTURES, tmp_path_factory.mktemp('old') / 'version_0')


@pytest.fixture
def here(copied, monkeypatch):
  """In a copy of all: the places in their configs are relative."""
  monkeypatch.chdir(copied)


def goes_on(name: str) -> dict:
  """Continues the run from its checkpoint; returns the last evaluation."""
  if name != 'elas':
    return train(load_past(name, '--workdir').parsed, name)
  flags = [f'--config.{field}={value}' for field, value in ELAS.items()]
  main(
    [
      '--config=configs/c4.py:tiny,elas',
      *flags,
      '--config.eval.prompt=The ',
      '--workdir=elas',
    ]
  )
  return read_metrics(name)[1][-1]


@pytest.mark.parametrize('name', thinned(WORKDIRS, 'elas', 'quadratic'))
def test_parameters_of_version_0_are_found(here, name):
  """Their config too: what is checked below of all is that they do what they did."""
  run = open_run(name, 6, {'eval.units': 0})
  assert 'version' not in run.past.config
  assert sha256(run.variables['params']) == WORKDIRS[name]['in_tests']['params_sha256_at_6']


@pytest.mark.parametrize('name', thinned(WORKDIRS, 'kan_classifier'))
def test_a_run_of_version_0_is_what_it_was(here, name):
  expected = WORKDIRS[name]['in_tests']
  run = open_run(name, 6, {'eval.units': 0})
  validation = run.prepared(('validation',)).validation
  values = evaluate(run.config, run.variables, validation, run.mesh)
  assert_recorded(name, {'step': run.step} | values, expected['evaluation_at_6'])
  for way, chosen in (('greedy', {'temperature': 0.0}), ('sampled', {})):
    if way in expected:  # of a language model
      assert generated(run, **chosen) == expected[way]

  last = goes_on(name)
  lines = [line for line in read_metrics(name)[1] if line['step'] > 6]
  losses = {str(x['step']): x['train/loss'] for x in lines if 'train/loss' in x}
  assert_recorded(name, losses, expected['losses'])
  at_12 = expected['evaluation_at_12']
  assert_recorded(name, {key: last[key] for key in at_12}, at_12)
  # What goes on is of today's version, and the same run.
  past = load_past(name, '--workdir')
  assert (past.step, past.config['version']) == (12, VERSION)
  assert past.parsed == run.past.parsed
  final = final_params(name)
  for part in ('params', 'buffers') if as_recorded(name) else ():
    assert sha256(final[part]) == expected[f'{part}_sha256_at_12']


@pytest.mark.conformance
@pytest.mark.parametrize('name', ROUNDED_OTHERWISE)
def test_with_the_emitters_of_training_to_the_bit(name):
  if not OLDER_EMITTERS:
    pytest.skip('EMITTERS=newer: this run of the tests has them already')
  test = f'{__file__}::test_a_run_of_version_0_is_what_it_was[{name}]'
  words, newer = (
    [sys.executable, '-m', 'pytest', '-m', '', test],
    os.environ | {'EMITTERS': 'newer'},
  )
  run = subprocess.run(
    words, cwd=ROOT, env=newer | {'XLA_FLAGS': ''}, capture_output=True, text=True
  )
  assert ' 1 passed' in run.stdout, run.stdout + run.stderr


def generated(run, temperature=0.8) -> str:
  """As the command does it, with its defaults."""
  (text,) = generate(
    run.config.model,
    run.variables,
    run.tokenizer,
    [RECORDED['prompt']],
    length=RECORDED['tokens'],
    temperature=temperature,
    top_p=0.95,
    seed=0,
  )
  return text


@pytest.mark.parametrize('name', WORKDIRS)
def test_the_tolerance_is_that_of_another_machine(name):
  """Other settings of the compiler, as recorded too, are within it; other steps are not."""
  one, four = (WORKDIRS[name][how] for how in ('one_device', 'in_tests'))
  for values in ('losses', 'evaluation_at_6', 'evaluation_at_12'):
    close(one[values], four[values])
  loss = lambda step: {'eval/loss': four[f'evaluation_at_{step}']['eval/loss']}
  with pytest.raises(AssertionError):
    close(loss(6), {name: value + 0.1 for name, value in loss(6).items()})


def test_an_old_checkpoint_has_its_vocabulary_under_another_name(here):
  saved = Saved(pathlib.Path('kat/checkpoints/6'))
  assert saved.vocabulary == 'tokenizer'
  assert saved.json('tokenizer') == {'elas_jax_tokenizer': 'bytes'}
  assert load_past('kat', '', 6).needs == {'elas_jax_tokenizer': 'bytes'}


def test_a_run_of_a_later_version_is_refused(here, tmp_path):
  step = shutil.copytree('kan_classifier/checkpoints/6', tmp_path / 'run/checkpoints/6')
  drop_items(step, 'checksums')
  tree = json.loads((step / 'config/data.json').read_text()) | {'version': 99}
  (step / 'config/data.json').write_text(json.dumps(tree))
  config = load_past('kan_classifier', '').parsed
  message = rf'{tmp_path}/run: version=99: this code reads .* of versions 0 to {VERSION}'
  for use in (
    lambda: open_run(tmp_path / 'run', None, {}),
    lambda: train(config, tmp_path / 'run'),
  ):
    with pytest.raises(UserError, match=f'^{message}$'):
      use()
  assert [path.name for path in (tmp_path / 'run').iterdir()] == ['checkpoints']


def test_a_config_from_before_a_field_is_read():
  tree = json.loads(to_json(tiny_config(pathlib.Path())))
  del tree['data']['accept_changed'], tree['model']['linear']['factor_init']
  del tree['model']['norm'], tree['checkpoint']
  assert parse_stored(tree) == tiny_config(pathlib.Path(), **{'checkpoint.every': 350})
