"""Decoders and vision transformers of the same parts: layers that differ, lora."""

import dataclasses
import json
import operator
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elas_jax.common.errors import UserError
from elas_jax.config.checks import check
from elas_jax.config.config import at_step, to_json, to_tree
from elas_jax.config.parsing import parse_stored
from elas_jax.config.schema import kinds_in
from elas_jax.models import layout
from elas_jax.models.classifier import Network
from elas_jax.models.decoder import Decoder, empty_cache
from elas_jax.models.flops import flops
from elas_jax.run.state import abstract_variables
from elas_jax.systems.architectures import ARCHITECTURES
from elas_jax.systems.feed_forwards import FEED_FORWARDS
from elas_jax.systems.kinds import room
from elas_jax.systems.linears import LINEARS
from elas_jax.systems.measures import MEASURES
from elas_jax.systems.mixers import MIXERS
from elas_jax.systems.objectives import OBJECTIVES
from elas_jax.tasks import task_of
from tests.conformance import conformance_test as conformance
from tests.conformance.hosts import batch, hybrid, language, network, transformer
from tests.programs import init_variables

LINEAR = MIXERS['linear_attention'](heads=2, chunk=3)
LORA = LINEARS['lora'](rank=2)
PRUNED = FEED_FORWARDS['relu2_two_four'](dense_steps=3)


def hybrid_of_four():
  """linear, attention, linear, attention; the second of each two is pruned to 2:4."""
  config = language(
    layers=4,
    mixers=(LINEAR,),
    feed_forwards=(PRUNED,),
    pattern='linear_attention,attention+relu2_two_four',
  )
  check(config)
  return config


def projected(x, p):
  return x @ p['kernel'] + p['bias']


def norm(x, p):
  """RMSNorm."""
  x = np.asarray(x)
  return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * p['scale']


def test_the_layers_of_a_cycle_are_stacked_each_by_itself():
  config = hybrid_of_four()
  params = abstract_variables(config)['params']['layers']
  assert set(params) == {'layer_0', 'layer_1'}
  assert params['layer_0']['attention']['query']['kernel'].shape == (2, 8, 8)
  assert parse_stored(json.loads(to_json(config))) == config


def test_a_cycle_is_its_layers_one_after_the_other():
  """Against the same parameters in decoders of one kind of layer, applied by hand."""
  config = hybrid_of_four()
  model, tokens = config.model, jnp.arange(16).reshape(2, 8) % 17
  variables = Decoder(model).init(jax.random.key(0), tokens)
  logits, _ = Decoder(model).apply(variables, tokens)
  p = jax.tree.map(np.asarray, variables['params'])
  angles = model.position.angles(jnp.arange(8), 4)
  x = jnp.asarray(p['embedding'])[tokens]
  for depth in range(4):
    layer = model.cycle[depth % 2]
    own = jax.tree.map(operator.itemgetter(depth // 2), p['layers'][f'layer_{depth % 2}'])
    attention = layer.attention.make(model.parts, name=None)
    y, _ = attention.apply(
      {'params': own['attention']}, norm(x, own['attention_norm']), angles, None, 0
    )
    x = x + y
    feed_forward = layer.feed_forward.make(model.parts, name=None)
    x = x + feed_forward.apply(
      {'params': own['feed_forward']}, norm(x, own['feed_forward_norm'])
    )
  expected = norm(x, p['final_norm']) @ p['head']
  np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.conformance
def test_a_hybrid_decodes_token_by_token():
  model, tokens = hybrid_of_four().model, jnp.arange(12).reshape(2, 6) % 17
  decoder = Decoder(model)
  variables = decoder.init(jax.random.key(0), tokens)
  whole, _ = decoder.apply(variables, tokens)
  cache, step = empty_cache(model, 2, 6), jax.jit(decoder.apply)
  for position in range(6):
    logits, cache = step(variables, tokens[:, position : position + 1], cache, position)
    np.testing.assert_allclose(logits[:, 0], whole[:, position], rtol=1e-3, atol=1e-4)


def test_the_dense_warm_up_reaches_the_feed_forwards_of_a_pattern():
  config = hybrid_of_four()
  kinds = lambda step: [type(x.feed_forward) for x in at_step(config, step).model.cycle]
  plain, pruned = FEED_FORWARDS['mlp'], FEED_FORWARDS['relu2_two_four']
  assert kinds(3) == [plain, plain] and kinds(4) == [plain, pruned]
  assert at_step(config, 4) is config


def count(config):
  return flops(config.model, abstract_variables(config)['params'], config.length)


def test_flops_of_a_hybrid_are_those_of_its_layers():
  """D 8, F 16, V 17, L 8, K 4: 6 an entry of a matrix, and what the mixers say."""
  maps = 4 * (4 * 8 * 8 + 2 * 8 * 16)
  mixers = 2 * (12 * 8 * 8) + 2 * (12 * 8 * 4)
  assert count(hybrid_of_four()) == 6 * (maps + 8 * 17) + mixers


def test_flops_of_networks_are_those_of_their_positions():
  """Images of 8 x 8 x 1, D 8, 4 classes."""
  # 16 patches of 2 x 2, one layer with F 16, the head once.
  layer = 4 * 8 * 8 + 2 * 8 * 16
  assert count(transformer()) == 6 * (16 * (4 * 8 + layer) + 8 * 4) + 16 * 12 * 8 * 16
  stack = network(depth=2)
  assert count(stack) == 6 * (64 * 8 + 8 * 8 + 8 * 4)
  convnet = network(architecture=ARCHITECTURES['convnet'](), depth=2)
  assert count(convnet) == 6 * (64 * 9 * 8 + 16 * 9 * 8 * 8 + 8 * 4)
  resnet = network(architecture=ARCHITECTURES['resnet']())
  stages = 64 * 2 * 9 * 8 * 8 + 16 * 9 * (8 * 16 + 16 * 16) + 4 * 9 * (16 * 32 + 32 * 32)
  assert count(resnet) == 6 * (64 * 9 * 8 + stages + 32 * 4)


@pytest.mark.parametrize(
  'config, expected',
  [
    (network(), {'layer_0': ('fsdp', 'tensor'), 'head': ('tensor', 'fsdp')}),
    (
      network(architecture=ARCHITECTURES['convnet']()),
      {'layer_0': (None, None, 'fsdp', 'tensor'), 'head': ('tensor', 'fsdp')},
    ),
    (
      transformer(),
      {
        'patches': (None, None, 'fsdp', 'tensor'),
        'layers/attention/query': ('fsdp', 'tensor'),
        'layers/attention/output': ('tensor', 'fsdp'),
        'layers/feed_forward/up': ('fsdp', 'tensor'),
        'layers/feed_forward/down': ('tensor', 'fsdp'),
        'head': ('tensor', 'fsdp'),
      },
    ),
  ],
  ids=['stack', 'convnet', 'vit'],
)
def test_sides_of_networks_that_are_split(config, expected):
  placed = layout.axes(config.model)
  found = {path: placed[f'network/{path}/kernel'] for path in expected}
  padded = lambda axes, like: (None,) * (len(like) - len(axes)) + axes
  assert {path: padded(axes, expected[path]) for path, axes in found.items()} == expected


def test_a_phase_of_a_pattern_is_read_as_the_config_is():
  """In the dense warm-up another kind stands under the name of the pruned one."""
  now = at_step(hybrid_of_four(), 1)
  assert to_tree(now)['model']['feed_forwards'] == {
    'relu2_two_four': {'activation': {'kind': 'relu2'}}
  }
  kinds = {where: type(kind) for where, _, kind in kinds_in(now.model, 'model.')}
  assert kinds['model.feed_forwards.relu2_two_four'] is FEED_FORWARDS['mlp']
  assert at_step(now, 9).model.cycle == now.model.cycle  # what has no phases stays


@pytest.mark.conformance
def test_weights_of_patches_are_those_of_their_image():
  """The activations of a transformer of images, by objective and measure."""
  squared = FEED_FORWARDS['mlp']()
  config = transformer(feed_forward=squared)
  rows = {name: jnp.asarray(x) for name, x in batch(config).items()}
  rows['valid'] = jnp.array([1, 0, 1, 1])
  variables = init_variables(config)
  seen = task_of(config).forward(
    config, variables, rows, jax.random.key(0), False, ('activation',)
  )
  y = np.asarray(seen.layers('activation'), np.float64).reshape(4, 16, 16)
  valid = y[np.array([0, 2, 3])]
  np.testing.assert_allclose(
    OBJECTIVES['l1_activations']().loss(seen), valid.mean(), rtol=1e-5
  )
  zeros = MEASURES['activations']().measure(seen)['zero_fraction']
  np.testing.assert_allclose(zeros, [(valid == 0).mean()], rtol=1e-5)


@pytest.mark.conformance
def test_ranks_of_a_hybrid_are_those_of_its_layers_in_order():
  config = hybrid_of_four()
  variables = init_variables(config)
  seen = types.SimpleNamespace(matrices=lambda: layout.matrices(config.model, variables))
  found = MEASURES['spectrum']().measure(seen)
  layers = variables['params']['layers']
  for depth in range(4):
    w = layers[f'layer_{depth % 2}']['attention']['query']['kernel'][depth // 2]
    s = np.linalg.svd(np.float64(w), compute_uv=False)
    expected = (s**2).sum() / s[0] ** 2
    ours = found['stable_rank/layers/attention/query'][depth]
    np.testing.assert_allclose(ours, expected, rtol=1e-4)


def test_linear_attention_of_features_far_below_zero():
  """e^x is no difference of two ones, and what nobody sees is 0 and not 0 / 0."""
  config = language(attention=LINEAR)
  x = jnp.full((1, 3, 8), 1.0)
  module = LINEAR.make(config.model.parts, name=None)
  angles = config.model.position.angles(jnp.arange(3), 4)
  variables = module.init(jax.random.key(0), x, angles, None, 0)
  kernel = lambda scale: {'kernel': jnp.full((8, 8), scale / 8)}
  p = variables['params'] | {'query': kernel(-30.0), 'key': kernel(-200.0)}
  y, _ = module.apply({'params': p}, x, angles, None, 0)
  assert jnp.isfinite(y).all()
  features = room(LINEAR).features(jnp.array([-20.0, -12.0, 2.0]))
  np.testing.assert_allclose(features, [np.exp(-20.0), np.exp(-12.0), 3.0], rtol=1e-5)


@pytest.mark.parametrize(
  'fields, message',
  [
    ({'pattern': 'attention,moe'}, "model.pattern='attention,moe': 'moe' must be one of "),
    (
      {'pattern': 'attention+glu'},
      "'glu' must be named; --config.model.feed_forw",
    ),
    (
      {'pattern': 'attention,attention,attention'},
      'model.layers=2: must be a multiple of 3',
    ),
    ({'mixers': (LINEAR,)}, 'model.mixers=linear_attention: must be empty without'),
    (
      {'mixers': (LINEAR,), 'pattern': 'attention'},
      "model.mixers=linear_attention: 'linear_attention' is in no layer",
    ),
    ({'pattern': ',attention'}, "'' must be one of 'attention'"),
    (
      {'mixers': (LINEAR,), 'pattern': 'linear_attention'},
      'must have attention, where model.attention stands',
    ),
    (
      {'feed_forwards': (PRUNED,), 'pattern': 'attention+relu2_two_four'},
      r'must have a layer without \+, where model.feed_forward stands',
    ),
  ],
)
def test_patterns_that_cannot_be(fields, message):
  with pytest.raises(UserError, match=message):
    check(language(**fields))


def test_lora_enters_a_vision_transformer():
  """All maps of its layers have factors; zero ones change nothing, W is the rest."""
  config = transformer(linear=LORA)
  check(config)
  model, x = config.model, jax.random.normal(jax.random.key(1), (3, 8, 8, 1))
  variables = Network(model).init(jax.random.key(0), x)
  layers = variables['params']['network']['layers']
  for map_name in ('query', 'key', 'value', 'output'):
    assert set(layers['attention'][map_name]) == {'kernel', 'a', 'b', 'bias'}
  assert set(layers['feed_forward']['up']) == {'kernel', 'a', 'b', 'bias'}
  plain = dataclasses.replace(model, linear=LINEARS['dense']())
  drop = lambda tree: {
    name: drop(child) if isinstance(child, dict) else child
    for name, child in tree.items()
    if name not in ('a', 'b')
  }
  np.testing.assert_allclose(
    Network(model).apply(variables, x), Network(plain).apply(drop(variables), x), rtol=1e-5
  )


def test_attention_of_images_sees_both_ways():
  """The truth: head by head over all positions."""
  config = transformer()
  stack = config.model.stack
  kind, parts = stack.cycle[0].attention, stack.attention_parts
  x = np.random.default_rng(0).normal(size=(2, 5, 8)).astype(np.float32)
  module = kind.make(parts, name=None)
  variables = module.init(jax.random.key(0), x, None, None, 0)
  y, _ = module.apply(variables, x, None, None, 0)
  p = jax.tree.map(np.float64, variables['params'])
  heads = lambda name: projected(x, p[name]).reshape(2, 5, 2, 4)
  scores = np.einsum('blhk,bshk->bhls', heads('query'), heads('key')) / 2
  weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
  mixed = np.einsum('bhls,bshk->blhk', weights, heads('value')).reshape(2, 5, 8)
  expected = projected(mixed, p['output'])
  np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


def test_linear_attention_of_images_sees_both_ways():
  """By its formula, over all positions."""
  config = transformer(attention=LINEAR)
  kind, parts = LINEAR, config.model.stack.attention_parts
  x = np.random.default_rng(0).normal(size=(2, 5, 8)).astype(np.float32)
  module = kind.make(parts, name=None)
  variables = module.init(jax.random.key(0), x, None, None, 0)
  y, _ = module.apply(variables, x, None, None, 0)
  p = jax.tree.map(np.float64, variables['params'])
  heads = lambda name: projected(x, p[name]).reshape(2, 5, 2, 4)
  phi = lambda z: np.where(z > 0, z + 1, np.exp(np.minimum(z, 0)))
  scores = np.einsum('blhk,bshk->bhls', phi(heads('query')), phi(heads('key')))
  weights = scores / scores.sum(-1, keepdims=True)
  mixed = np.einsum('bhls,bshk->blhk', weights, heads('value')).reshape(2, 5, 8)
  expected = projected(mixed, p['output'])
  np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('config', [transformer(linear=LORA), hybrid(LINEAR)], ids=str)
def test_both_are_split_over_four_devices(config):
  """Tensor and fsdp split every map of attention and feed-forward."""
  placed = layout.axes(config.model)
  kernels = {path: axes for path, axes in placed.items() if path.endswith('/kernel')}
  assert kernels
  for path, axes in kernels.items():
    assert {'fsdp', 'tensor'} <= set(axes), path


@pytest.mark.conformance
@pytest.mark.parametrize('config', [transformer(linear=LORA), hybrid_of_four()], ids=str)
def test_both_train_on_four_devices_as_on_one(config):
  _, losses = conformance.trained(config, config.train.steps)
  assert min(losses[-3:]) < losses[0]
  conformance.assert_same_on_four_devices(config, losses)
