"""What is recorded of a run that has ended: values, a thin curve, sizes; and its folder."""

import dataclasses
import json
import platform
import shutil

import pytest

from configs import images
from elas_jax.common.errors import UserError
from elas_jax.config import schema
from elas_jax.config.config import to_json
from elas_jax.config.parsing import parse
from elas_jax.data.blocks import prepare
from elas_jax.run import record, revisions
from elas_jax.run.ended import recorded, size_of, thin, values, workdir_of
from elas_jax.run.metrics import machine
from elas_jax.run.record import append, key, line_of, read
from elas_jax.systems.activations.relu2 import Relu2
from elas_jax.systems.feed_forwards.mlp import MLP
from tests.run.younger_fields import CLASSES, one_more_field


def test_a_curve_is_thinned_by_hand():
  assert thin([]) == thin([{'step': 1, 'train/lr': 1.0}]) == {}
  short = [{'step': s, 'train/loss': s / 7, 'eval/loss': None} for s in range(24)]
  assert thin(short) == {
    'train/loss': [[s, float(f'{s / 7:.5g}')] for s in range(24)]  # all of 24
  }
  assert thin(short)['train/loss'][3] == [3, 0.42857]
  # Of 26, and of 50, every second or third from the last.
  step = lambda s: {'step': s, 'train/loss': 1e6 + s, 'eval/loss': 1e-9 / 3}
  found = thin([step(s) for s in range(26)])
  assert found['train/loss'] == [[s, 1e6] for s in range(1, 26, 2)]
  assert found['eval/loss'][-1] == [25, 3.3333e-10]
  found = thin([step(s) for s in range(1, 51)])
  assert [s for s, _ in found['train/loss']] == list(range(2, 51, 3))
  # What is null is left out before that: of 30 there are 15.
  some = [{'step': s, 'eval/loss': None if s % 2 else float(s)} for s in range(30)]
  assert thin(some) == {'eval/loss': [[s, s] for s in range(0, 30, 2)]}


@pytest.fixture(scope='module')
def digits():
  """Two dense layers and 1797 digits, a fifth of them for validation."""
  return parse(images.get_config('digits,mlp'))


def test_values_by_hand(digits):
  steps = digits.train.steps
  speeds = [{'step': s, 'train/examples_per_second': x} for s, x in enumerate((1, 9, 4))]
  before = {'step': steps - 1, 'eval/loss': 7.0, 'eval/f1': 0.5}
  last = [
    {'step': steps, 'train/loss': 3.0, 'eval/measures/layer_0': 2.0, 'x/mean': 1.0},
    {'step': steps, 'eval/loss': 0.5, 'eval/accuracy': 0.75, 'eval/f1': 0.125},
    {'step': steps, 'note': 'its data have changed'},
  ]
  assert values(digits, [*speeds, before, *last]) == {
    'x/mean': 1.0,
    'eval/loss': 0.5,
    'eval/accuracy': 0.75,
    'eval/f1': 0.125,
    'accuracy_percent': 75.0,
    'f1_percent': 12.5,
    'seconds_per_epoch': 1437 / 4,  # by the median speed
  }
  null = {'step': steps, 'eval/loss': 0.5, 'eval/accuracy': None}
  assert values(digits, [null]) == {'eval/loss': 0.5, 'eval/accuracy': None}
  assert values(digits, [*speeds, before]) == {}


def test_a_trained_run_is_recorded_as_its_metrics_say(trained, tmp_path):
  config, workdir = trained
  about, *lines = map(json.loads, (workdir / 'metrics.jsonl').read_text().splitlines())
  run = recorded(workdir, config, None, 12.5)
  steps = config.train.steps
  of_steps = {x['step']: x for x in lines if 'train/loss' in x}
  evaluation = next(x for x in lines if x['step'] == steps and 'eval/loss' in x)
  assert len(of_steps) == steps
  assert run.status == 'finished' and run.step is None and run.seconds == 12.5
  assert {name: run.values[name] for name in evaluation if name.startswith('eval/')} == {
    name: x for name, x in evaluation.items() if name.startswith('eval/')
  }
  # Of what is measured by layer the mean over layers.
  name = 'activations/zero_fraction'
  by_layer = [x for key, x in evaluation.items() if key.startswith(f'{name}/')]
  assert len(by_layer) == 2
  assert run.values[name] == pytest.approx(sum(by_layer) / 2, rel=1e-5)
  assert all(x.count('/') == 1 and not x.startswith('train/') for x in run.values)
  assert [s for s, _ in run.curve['train/loss']] == list(range(1, steps + 1))
  for s, loss in run.curve['train/loss']:
    assert loss == pytest.approx(of_steps[s]['train/loss'], rel=5e-5)
    assert len(f'{loss:.9g}'.replace('.', '').lstrip('0')) <= 5
  rows = prepare(config.data.source.corpus(config.data)).train.fingerprint
  also = {'python': platform.python_version()}
  assert run.data == rows
  assert run.versions == about['run']['versions'] | also
  for name in ('commit', 'time'):
    assert getattr(run, name) == about['run'][name]
  assert run.fingerprint == run.key == key(config)
  # The config, less what it says of this machine.
  leaves = lambda x: {p: v for p, v, _ in schema.leaves(x) if p not in record.LEFT_OUT}
  assert leaves(run.parsed) == leaves(config)
  for field in ('data.cache_dir', 'train.compilation_cache', 'eval.measures'):
    section, name = field.split('.')
    assert name not in run.config[section]
  append(tmp_path / 'runs.jsonl', run)
  assert line_of(*read(tmp_path / 'runs.jsonl')) == line_of(run)
  # And it is recognised by a config with other places on this machine.
  other = dataclasses.replace(config.data, cache_dir='elsewhere', processes=7)
  other = dataclasses.replace(config, data=other)
  assert record.Record([run]).find(other) is run
  assert record.Record([run]).find(dataclasses.replace(config, seed=1)) is None


def test_a_run_that_is_not_at_its_end_is_an_error(trained, tmp_path):
  config, workdir = trained
  whole = (workdir / 'metrics.jsonl').read_text().splitlines(keepends=True)
  assert '"eval/loss"' in whole[-1]
  words = f'^{tmp_path}: stopped before its end; the same command continues$'
  for kept in (whole[:1], whole[:-1]):
    (tmp_path / 'metrics.jsonl').write_text(''.join(kept))
    with pytest.raises(UserError, match=words):
      recorded(tmp_path, config, None, 1.0)
  # More steps are another end.
  (tmp_path / 'metrics.jsonl').write_text(''.join(whole))
  longer = dataclasses.replace(config.train, steps=config.train.steps + 1)
  with pytest.raises(UserError, match=words):
    recorded(tmp_path, dataclasses.replace(config, train=longer), None, 1.0)


def test_a_run_that_diverged_has_a_step_and_no_values(trained):
  config, workdir = trained
  run = recorded(workdir, config, 5, None)
  assert (run.status, run.step, run.values, run.seconds) == ('diverged', 5, {}, None)
  assert run.curve and run.size and run.device == machine()


@pytest.fixture
def folder(tmp_path):
  return tmp_path / 'runs'


def begun(folder, config):
  """The folder of such a run, with its config.json."""
  workdir = workdir_of(folder, 'text-adamw', config)
  workdir.mkdir(parents=True)
  (workdir / 'config.json').write_text(to_json(config))
  return workdir


def test_a_folder_is_called_by_name_seed_and_key(folder, make_config):
  config = make_config(seed=3, optimizer='adamw', schedule='constant')
  new = workdir_of(folder, 'text-adamw', config)
  assert new == folder / f'text-adamw-seed3-{key(config)}' and not folder.exists()
  assert begun(folder, config) == new == workdir_of(folder, 'text-adamw', config)
  other = dataclasses.replace(config, seed=4)
  assert workdir_of(folder, 'text-adamw', other).name == f'text-adamw-seed4-{key(other)}'
  loro = make_config(optimizer='loro', schedule='displaced_cosine_restarts')
  assert workdir_of(folder, 'x', loro).name == f'x-seed0-loro_step-{key(loro)}'


def test_a_folder_of_when_configs_had_fewer_fields_is_continued(folder, make_config):
  config = make_config()
  workdir = begun(folder, config)
  with one_more_field(CLASSES):
    now = make_config()
    assert now.synthetic == now.model.linear.synthetic == 7.0
    assert key(now) not in workdir.name
    assert workdir_of(folder, 'text-adamw', now) == workdir
    changed = dataclasses.replace(now, synthetic=8.0)
    assert workdir_of(folder, 'text-adamw', changed).name.endswith(key(changed))


def test_a_folder_where_kinds_had_other_names_is_continued(folder, make_config):
  """Or whose name was made in another way: config.json says what it is."""
  config = make_config()
  workdir = begun(folder, config)
  older = workdir.with_name(workdir.name[:-12] + '0123456789ab')
  workdir.rename(older)
  assert workdir_of(folder, 'text-adamw', config) == older
  # Not one that is called by another name, seed, or none of ours.
  for name in (older.name.replace('text', 'rows'), older.name + '.old'):
    shutil.move(older, folder / name)
    assert workdir_of(folder, 'text-adamw', config) == workdir
    shutil.move(folder / name, older)


def test_a_folder_of_before_a_revision_is_not_continued(folder, make_config, monkeypatch):
  config = make_config(optimizer='loro', schedule='displaced_cosine_restarts')
  with monkeypatch.context() as patch:
    patch.setattr(revisions, 'REVISIONS', {})
    record.key.cache_clear()
    before = begun(folder, config)
  record.key.cache_clear()
  now = workdir_of(folder, 'text-adamw', config)
  assert now != before and now.name.startswith(before.name[:-12] + 'loro_step-')


@pytest.mark.parametrize(
  'text',
  [
    '',
    '{"seed": 0, "mod',
    '[1]',
    '{"version": 99}',
    '{"version": 0}',
    '{"hue": 1}',
    '\xff',
  ],
)
def test_a_folder_with_a_damaged_config_is_left_alone(folder, make_config, text):
  config = make_config()
  workdir = begun(folder, config)
  older = workdir.with_name(workdir.name[:-12] + '0123456789ab')
  workdir.rename(older)
  (older / 'config.json').write_bytes(text.encode('latin-1'))
  assert workdir_of(folder, 'text-adamw', config) == workdir


def test_size_of_a_decoder_by_hand(make_config):
  """D 32, F 64, V 257, R 8, L 32, two layers of low rank, and a head of its own."""
  config = make_config(optimizer='adamw', seed=5)
  width, hidden, vocabulary, rank, length, layers = 32, 64, 257, 8, 32, 2
  model = config.model
  assert (model.width, model.feed_forward_width, model.vocab_size) == (32, 64, 257)
  assert (model.layers, model.linear.rank, config.length) == (layers, rank, length)
  assert not model.tied_head and model.feed_forward == MLP(activation=Relu2())
  factors = layers * rank * (4 * (width + width) + 2 * (width + hidden))
  head = vocabulary * width
  norms = (2 * layers + 1) * width
  parameters = factors + 2 * head + norms
  # 6 of every entry that multiplies; scores and values of 12 L D a layer.
  products = 6 * (factors + head) + layers * 12 * length * width
  assert size_of(config) == {
    'parameters': parameters,
    'parameter_bytes': 4 * parameters,
    'buffer_bytes': 0,
    # Two moments of each, and the steps as Adam and as the schedule count them.
    'optimizer_bytes': 4 * (2 * parameters + 2),
    'training_flops': products,
  }


def test_size_of_a_network_by_hand(digits):
  """64 pixels, 64 hidden, 10 classes; scales and biases of two norms of 64."""
  products, norms = 64 * 64 + 64 * 10, 2 * 2 * 64
  found = size_of(digits)
  assert found['parameters'] == products + norms
  assert found['training_flops'] == 6 * products
  # What the compiler counts besides the products: norms and activations.
  assert 2 * products < found['forward_flops'] < 1.2 * 2 * products
