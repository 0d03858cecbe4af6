"""Importances in NumPy, which layers go, and that the others are what they were."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from elas_jax import convert
from elas_jax.common.errors import UserError
from elas_jax.config.config import MeshConfig
from elas_jax.run import conversion
from elas_jax.run.sharding import make_mesh
from elas_jax.run.state import create_state
from elas_jax.run.workdir import open_run
from elas_jax.systems.activations import ACTIVATIONS
from elas_jax.systems.architectures import ARCHITECTURES
from elas_jax.systems.converters.layers import Layers
from elas_jax.systems.linears import LINEARS
from elas_jax.systems.mixers import MIXERS
from tests.conformance.hosts import batch, given, hybrid, language, network, transformer
from tests.conftest import ROOT, thinned
from tests.systems.converters.drawn import at, converted, drawn, outputs


def deeper(config, depth):
  return dataclasses.replace(config, model=dataclasses.replace(config.model, depth=depth))


def resnet(depth):
  parts = {'architecture': ARCHITECTURES['resnet'](), 'activation': ACTIVATIONS['relu']()}
  return network(depth=depth, width=4, **parts)


@pytest.fixture
def regression():
  """(config, variables, rows, x (P, I + 1), error (P, O)): one linear map with a bias."""
  model = network(depth=0, input_shape=(5,), outputs=3).model
  base = network()
  config = dataclasses.replace(base, task='regression', model=model)
  variables = drawn(config)
  random = np.random.default_rng(1)
  rows = {
    'inputs': random.normal(size=(7, 5)).astype(np.float32),
    'targets': random.normal(size=(7, 3)).astype(np.float32),
    'valid': np.array([1, 1, 1, 0, 1, 1, 1], np.int32),
  }
  p = variables['params']['network']['head']
  counted = rows['valid'] > 0
  x = np.c_[np.float64(rows['inputs']), np.ones(7)][counted]
  error = x @ np.r_[p['kernel'], p['bias'][None]] - rows['targets'][counted]
  return config, variables, rows, x, error


@pytest.mark.parametrize('units', [2048, 3])
def test_loss_and_slopes_of_a_linear_model(regression, units, monkeypatch):
  """In one pass, and in three."""
  monkeypatch.setattr(conversion, 'UNITS', units)
  config, variables, rows, x, error = regression
  told = given(config, variables, [])
  assert len(list(conversion._passes(config, rows))) == -(-7 // units)
  loss = told.loss(config, variables, rows)
  np.testing.assert_allclose(loss, np.square(error).mean(), rtol=1e-5)
  g = told.slopes(config, variables, rows)['network']['head']
  expected = 2 * x.T @ error / error.size
  np.testing.assert_allclose(g['kernel'], expected[:-1], rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(g['bias'], expected[-1], rtol=1e-4, atol=1e-6)
  along = jax.tree.map(lambda p: jnp.sin(3 * p), variables['params'])
  of = along['network']['head']
  h = told.slopes(config, variables, rows, along)['network']['head']
  expected = 2 * x.T @ (x @ np.r_[of['kernel'], of['bias'][None]]) / error.size
  np.testing.assert_allclose(h['kernel'], expected[:-1], rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(h['bias'], expected[-1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('criterion', ['snip', 'grasp'])
def test_layers_of_the_least_importance_go(criterion):
  """With slopes that are drawn: the first are g, those along them H g."""
  config = language(layers=5)
  variables, said = drawn(config), []
  g, h = (drawn(config, seed)['params'] for seed in (7, 8))

  def slopes(config, variables, rows, along=None):
    assert along is None or along is g
    return g if along is None else h

  told = dataclasses.replace(given(config, variables, said), slopes=slopes)
  new_config, new = Layers(2, criterion, rewind=False).convert(told)
  assert new_config.model.layers == 3
  w, slope = (
    {path: np.float64(x) for path, x in flatten_dict(tree['layers'], sep='/').items()}
    for tree in (variables['params'], g if criterion == 'snip' else h)
  )
  of = np.abs if criterion == 'snip' else (lambda x: x)
  sums = [sum(of(w[path][n] * slope[path][n]).sum() for path in w) for n in range(5)]
  kept = sorted(np.argsort(sums)[2:])
  for path, x in flatten_dict(new['params']['layers'], sep='/').items():
    np.testing.assert_array_equal(x, np.float32(w[path][kept]))
  for name in ('embedding', 'head'):
    np.testing.assert_array_equal(new['params'][name], variables['params'][name])
  assert said[0].count(' goes') == 2 and f'layer 4 {sums[4]:.3g}' in said[0]


NOTHING = {'decoder': ('attention/output', 'feed_forward/down')}
NOTHING['vit'] = NOTHING['decoder']


@pytest.mark.parametrize('name', thinned(['decoder', 'vit'], 'decoder'))
def test_a_layer_that_adds_nothing_goes_and_the_outputs_stay(name):
  config = language(layers=3) if name == 'decoder' else deeper(transformer(), 3)
  variables = drawn(config)
  prefix = 'layers' if name == 'decoder' else 'network/layers'
  for path in NOTHING[name]:
    p = at(variables['params'], f'{prefix}/{path}')
    p |= {below: x.at[1].set(0) for below, x in p.items()}
  new_config, new, said = converted(Layers(1, 'snip', rewind=False), config, variables)
  assert 'layer 1 0 goes' in said[0]
  rows = batch(config)
  before, after = outputs(config, variables, rows), outputs(new_config, new, rows)
  np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5)


def test_blocks_of_a_resnet():
  """One of each stage, here those that add nothing; blocks that halve the image stay."""
  config = resnet(3)
  variables = drawn(config)
  gone = {0: 0, 1: 2, 2: 1}
  for stage, block in gone.items():
    p = at(variables['params'], f'network/second_{stage}_{block}')
    p |= {below: 0 * x for below, x in p.items()}
  new_config, new, said = converted(Layers(1, 'snip', rewind=False), config, variables)
  assert new_config.model.depth == 2
  assert [line.count(' goes') for line in said] == [1, 1, 1]
  assert 'block 0 of stage 1' not in said[1]
  for stage, block in gone.items():
    left = [n for n in range(3) if n != block]
    for number, old in enumerate(left):
      p, was = (
        at(tree['params'], f'network/first_{stage}_{n}')
        for tree, n in ((new, number), (variables, old))
      )
      jax.tree.map(np.testing.assert_array_equal, p, was)
  rows = batch(config)
  before, after = outputs(config, variables, rows), outputs(new_config, new, rows)
  np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5)


def test_what_is_left_is_rewound():
  """To the start of the large model, but for masks, and judged by it."""
  config = language(layers=3, linear=LINEARS['masked']())
  variables, said = drawn(config, masked=0.5), []
  start, judged = given(config, variables, said).start(), []

  def slopes(config, variables, rows, along=None):
    """By which layer 1 is of no importance."""
    judged.append(variables['params'])
    ones = jax.tree.map(jnp.ones_like, judged[0])
    return ones | {'layers': jax.tree.map(lambda x: x.at[1].set(0), ones['layers'])}

  told = dataclasses.replace(given(config, variables, said), slopes=slopes)
  new_config, new = Layers(1, 'snip').convert(told)
  jax.tree.map(np.testing.assert_array_equal, judged[0], start['params'])
  assert new_config.model.layers == 2 and 'layer 1 0 goes' in said[0]
  same = lambda now, was: np.testing.assert_array_equal(now, np.asarray(was)[[0, 2]])
  jax.tree.map(same, new['params']['layers'], start['params']['layers'])
  jax.tree.map(same, new['buffers'], variables['buffers'])


def test_a_pattern_loses_whole_cycles():
  config = hybrid(MIXERS['linear_attention'](heads=2))
  config = dataclasses.replace(config, model=dataclasses.replace(config.model, layers=6))
  variables, said = drawn(config), []
  told = given(config, variables, said)
  slopes = lambda config, variables, rows: drawn(config, 7)['params']
  told = dataclasses.replace(told, slopes=slopes)
  new_config, new = Layers(4, 'snip', rewind=False).convert(told)
  assert new_config.model.layers == 2 and said[0].count(' goes') == 2
  marks = said[0].split(', ')
  (left,) = (n for n in range(3) if not marks[n].endswith('goes'))
  now, was = (x['params']['layers'] for x in (new, variables))
  jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[0], b[left]), now, was)


@pytest.mark.parametrize(
  ('converter', 'config', 'message'),
  [
    (Layers(2), language(), '^converter.remove=2: must be below model.layers=2$'),
    (Layers(0), language(), '^converter.remove=0: must be at least 1$'),
    (Layers(1), network(), "^model.architecture='stack': must be 'resnet' or 'vit', whose"),
    (
      Layers(1),
      hybrid(MIXERS['linear_attention'](heads=2)),
      '^converter.remove=1: must be a multiple of 2, the layers of model.pattern$',
    ),
  ],
)
def test_what_cannot_be_is_refused(converter, config, message):
  with pytest.raises(UserError, match=message):
    converter.check('converter', config)


@pytest.mark.conformance
@pytest.mark.usefixtures('four_devices')
@pytest.mark.parametrize('rewind', [True, False])
def test_phases_begin_again_with_the_parameters(rewind, tmp_path, monkeypatch, capsys):
  """A run of 3 dense steps, at step 6: by the command, on its own rows."""
  for name in ('elas', 'corpus'):
    shutil.copytree(ROOT / 'tests/fixtures/version_0' / name, tmp_path / name)
  monkeypatch.chdir(tmp_path)
  places = '--workdir=elas', '--output=new', '--converter=layers'
  convert.main([*places, f'--converter.rewind={rewind}'])
  assert 'importance: layer 0 ' in capsys.readouterr().out
  old, new = (open_run(name, None, {'eval.batch_size': 4}) for name in ('elas', 'new'))
  count = old.past.parsed.model.layers
  assert new.past.parsed.model.layers == count - 1
  assert new.past.parsed.model.feed_forward.dense_steps == (3 if rewind else 0)
  config = old.past.parsed
  start = create_state(config, make_mesh(dataclasses.replace(config, mesh=MeshConfig())))
  of = start.params if rewind else old.variables['params']
  same = np.array_equal
  np.testing.assert_array_equal(new.variables['params']['embedding'], of['embedding'])
  ups = [
    np.float64(x['layers']['feed_forward']['up']['a'])
    for x in (new.variables['params'], of)
  ]
  assert all(any(same(one, other) for other in ups[1]) for one in ups[0])
  made = json.loads((tmp_path / 'new/conversion.json').read_text())
  assert made['workdir'] == 'elas' and made['step'] == 6
  assert made['converter'].items() >= {'kind': 'layers', 'rewind': rewind}.items()
