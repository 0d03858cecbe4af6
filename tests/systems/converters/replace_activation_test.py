"""Another activation with the same parameters: what comes out, and what is refused."""

import types

import jax
import numpy as np
import pytest

from elas_jax.common.errors import UserError
from elas_jax.config.checks import check
from elas_jax.run.conversion import changes, check_variables
from elas_jax.run.state import init_variables
from elas_jax.systems.activations import ACTIVATIONS
from elas_jax.systems.architectures import ARCHITECTURES
from elas_jax.systems.converters.replace_activation import ReplaceActivation
from elas_jax.systems.feed_forwards import FEED_FORWARDS
from tests.conformance.hosts import batch, given, language, network, transformer

SILU = ACTIVATIONS['silu']()
GLU, MLP, KAT = (FEED_FORWARDS[name] for name in ('glu', 'mlp', 'kat'))
PATTERN = {
  'feed_forward': GLU(),
  'feed_forwards': (MLP(), FEED_FORWARDS['block'](4)),
  'pattern': 'attention,attention+mlp,attention+block',
  'layers': 3,
}
BELOW = 'model.feed_forward.activation: silu -> '


def converted(config, kind):
  kind.check('converter', config)
  variables = init_variables(config)
  new, same = kind.convert(given(config, variables, []))
  check(new)
  check_variables(new, same, 'replace_activation')
  assert same is variables
  return new, variables


@pytest.mark.parametrize(
  'config, expected',
  [
    (language(feed_forward=GLU()), [f'{BELOW}tanh']),
    (
      language(**PATTERN),
      [
        f'{BELOW}tanh',
        'model.feed_forwards.mlp.activation: relu2 -> tanh',
        'model.feed_forwards.block.activation: silu -> tanh',
      ],
    ),
    (
      transformer(feed_forward=MLP(SILU)),
      ['model.architecture.feed_forward.activation: silu -> tanh'],
    ),
    (network(activation=SILU), ['model.activation: silu -> tanh']),
    (
      network(architecture=ARCHITECTURES['convnet']()),
      ['model.activation: none -> tanh'],
    ),
  ],
)
def test_all_activations_and_nothing_else(config, expected):
  new, _ = converted(config, ReplaceActivation(ACTIVATIONS['tanh']()))
  assert list(changes(config, new)) == expected


def test_what_the_new_model_computes():
  """By hand: the head of a network of one layer, of the ReLU of what the layer gives."""
  config = network(activation=SILU)
  new, variables = converted(config, ReplaceActivation())
  rows = batch(config)
  found, _ = given(config, variables, []).outputs(new, variables, rows)
  p = jax.tree.map(lambda x: np.asarray(x, np.float64), variables['params']['network'])
  layer = lambda x, name: x @ p[name]['kernel'] + p[name]['bias']
  h = np.maximum(layer(rows['inputs'].reshape(4, -1), 'layer_0'), 0)
  np.testing.assert_allclose(found, layer(h, 'head'), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
  'config, activation, message',
  [
    (
      language(feed_forward=KAT(2)),
      'relu',
      "model.feed_forward='kat': must be one of 'glu', 'mlp', 'top_k', 'block' to have "
      'another activation',
    ),
    (
      language(
        **PATTERN | {'feed_forwards': (KAT(2),), 'pattern': 'attention,attention+kat'}
      ),
      'relu',
      "model.feed_forwards.kat='kat': must be one of 'glu', 'mlp', 'top_k', 'block' to "
      'have another activation',
    ),
    (language(), 'relu2', "converter.activation='relu2': the run has no other"),
    (network(), 'none', "converter.activation='none': the run has no other"),
  ],
)
def test_refused(config, activation, message):
  with pytest.raises(UserError) as error:
    ReplaceActivation(ACTIVATIONS[activation]()).check('converter', config)
  assert str(error.value) == message


def test_activations_with_parameters_are_refused(monkeypatch):
  scaled = types.ModuleType('scaled')
  scaled.AXES = {'scale': ()}

  class Scaled:
    __module__ = 'scaled'

  monkeypatch.setitem(__import__('sys').modules, 'scaled', scaled)
  monkeypatch.setitem(ACTIVATIONS, 'scaled', Scaled)
  with pytest.raises(UserError) as error:
    ReplaceActivation(Scaled()).check('converter', language())
  said = "converter.activation='scaled': has parameters that nothing has trained; must be "
  assert str(error.value).startswith(f"{said}one of 'none', 'relu', ")
  assert 'scaled' not in str(error.value)[len(said) :]
  with pytest.raises(UserError) as error:
    ReplaceActivation().check('converter', language(feed_forward=MLP(Scaled())))
  said = "model.feed_forward.activation='scaled': has parameters that would be lost; must"
  assert str(error.value).startswith(said)
