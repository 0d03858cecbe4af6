"""Language models of version 0: what each becomes, written out by hand."""

import copy

import pytest

from elas_jax.config.migrate import lifted
from elas_jax.config.parsing import parse_stored
from elas_jax.config.schema import tree as tree_of
from tests.config.old_trees import LANGUAGE, LOOP, changed

RANGE = {'grid': 3, 'grid_min': -1.5, 'grid_max': 1.25}
ENDS = {'data_norm': 'layer', 'init_scale': 0.5}
EXACT = {'kind': 'gelu', 'approximate': False}


def at(tree, path):
  for part in path.split('.'):
    tree = tree[part]
  return tree


def test_a_language_model():
  loop = {k: v for k, v in LOOP['train'].items() if k != 'z_loss'}
  expected = LOOP | {
    'task': 'language',
    'train': loop | {'objectives': {}},
    'model': {
      'vocab_size': 257,
      'width': 192,
      'layers': 4,
      'feed_forward_width': 768,
      'linear': {'kind': 'low_rank', 'rank': 48, 'factor_init': 'xavier'},
      'feed_forward': {'kind': 'mlp', 'activation': {'kind': 'relu2'}},
      'attention': {'kind': 'mha', 'heads': 4},
      'norm': {'kind': 'rms', 'epsilon': 2e-6},
      'position': {'kind': 'rope', 'base': 500.0},
      'pattern': '',
      'mixers': {},
      'feed_forwards': {},
      'init_std': 0.02,
      'tied_head': False,
      'unroll': 4,
      'remat': 'none',
      'param_dtype': 'float32',
      'compute_dtype': 'float32',
    },
    'data': {
      'source': {'kind': 'python_source', 'validation_share': 0.06},
      'max_bad_share': 0.02,
      'tokenizer': {'kind': 'bytes'},
      'protocol': 'packed',
      'document_mask': False,
      'sequence_length': 128,
      'batch_size': 16,
      'cache_dir': 'cache',
      'processes': 2,
      'read_threads': 3,
      'prefetch': 5,
      'accept_changed': False,
    },
    'optimizer': {
      'kind': 'adamw',
      'learning_rate': 0.002,
      'clip_norm': 1.0,
      'decay_rules': [],
      'b1': 0.9,
      'b2': 0.95,
      'epsilon': 1e-8,
      'weight_decay': 0.1,
    },
    'schedule': {
      'kind': 'cosine',
      'warmup_steps': 35,
      'warmup_fraction': 0.1,
      'final_fraction': 0.05,
    },
    'eval': {
      'every': 350,
      'units': 9,
      'batch_size': 32,
      'measures': {'activations': {}},
      'prompt': 'def ',
      'sample_tokens': 7,
    },
  }
  before = copy.deepcopy(LANGUAGE)
  assert lifted(LANGUAGE) == expected
  assert before == LANGUAGE  # what is lifted stays as it was
  # It can run, and nothing had to be filled in.
  parsed = tree_of(parse_stored(LANGUAGE))
  parsed['optimizer']['decay_rules'] = []  # JSON has no tuples
  # What came later, as it was before.
  attention = expected['model']['attention'] | {'qk_norm': False}
  younger = {
    'model': {'embedding_std': 0.0, 'attention': attention},
    'optimizer': {'embedding_rate': 0.0},
  }
  assert parsed == {k: x | younger[k] if k in younger else x for k, x in expected.items()}


MODEL_KINDS = [
  ({'linear': 'dense'}, 'linear', {'kind': 'dense'}),
  ({'linear': 'cola'}, 'linear', {'kind': 'cola', 'rank': 48}),
  (
    {'linear': 'sltrain'},
    'linear',
    {'kind': 'sltrain', 'rank': 48, 'alpha': 16.0, 'sparse_share': 0.04},
  ),
  (
    {'linear': 'lost'},
    'linear',
    {'kind': 'lost', 'rank': 48, 'gamma': 0.25, 'sparse_share': 0.04},
  ),
  (
    {'linear': 'lora'},
    'linear',
    {'kind': 'lora', 'rank': 48, 'alpha': 16.0, 'merge_every': 0},
  ),
  (
    {'linear': 'quadratic'},
    'linear',
    {
      'kind': 'quadratic',
      'form': 'compact',
      'start': 'random',
      'relinear': 'none',
      'relinear_g': 2e-4,
      'relinear_b': 3e-4,
    },
  ),
  ({'linear': 'rational'}, 'linear', {'kind': 'rational', 'groups': 12}),
  (
    {'linear': 'kan_bspline'},
    'linear',
    {'kind': 'kan_bspline', 'order': 2, 'activation': EXACT, **RANGE, **ENDS},
  ),
  (
    {'feed_forward': 'swiglu'},
    'feed_forward',
    {'kind': 'glu', 'activation': {'kind': 'silu'}},
  ),
  (
    {'feed_forward': 'bilinear'},
    'feed_forward',
    {'kind': 'glu', 'activation': {'kind': 'none'}},
  ),
  ({'feed_forward': 'kat'}, 'feed_forward', {'kind': 'kat', 'groups': 12}),
  (
    {'feed_forward': 'relu2_two_four'},
    'feed_forward',
    {
      'kind': 'relu2_two_four',
      'recipe': {'kind': 'top2', 'backward': 'exact'},
      'dense_steps': 11,
      'implementation': 'xla',
    },
  ),
  (
    {
      'feed_forward': 'relu2_two_four',
      'two_four_rule': 'soft_activations',
      'two_four_backward': 'straight_through',
    },
    'feed_forward.recipe',
    {'kind': 'soft_activations', 'backward': 'straight_through', 'refresh': 13},
  ),
  ({'kv_heads': 2}, 'attention', {'kind': 'gqa', 'heads': 4, 'kv_heads': 2}),
]


@pytest.mark.parametrize('fields, path, expected', MODEL_KINDS)
def test_kinds_of_a_language_model(fields, path, expected):
  old = changed(LANGUAGE, {f'model.{name}': value for name, value in fields.items()})
  assert at(lifted(old), f'model.{path}') == expected
  parsed = at(tree_of(parse_stored(old)), f'model.{path}')
  assert parsed == parsed | expected


ADAM = {'b1': 0.9, 'b2': 0.95, 'epsilon': 1e-8}
COMMON = {'learning_rate': 0.002, 'clip_norm': 1.0, 'decay_rules': []}
WARMUP = {'warmup_steps': 35, 'warmup_fraction': 0.1}
DECAY = {'decay_steps': 140, 'final_fraction': 0.05}
RESTARTS = {'restart_every': 500, 'restart_warmup_steps': 4}


@pytest.mark.parametrize(
  'name, expected',
  [
    ('sgd', {'momentum': 0.9, 'weight_decay': 0.1}),
    ('loro', {**ADAM, 'exact_every': 40, 'lazy_scale': 0.75}),
    ('galore', {**ADAM, 'weight_decay': 0.1, 'rank': 5, 'every': 6, 'scale': 0.125}),
  ],
)
def test_optimizers(name, expected):
  found = lifted(changed(LANGUAGE, {'optimizer.name': name}))['optimizer']
  assert found == {'kind': name, **COMMON, **expected}


@pytest.mark.parametrize(
  'name, expected',
  [
    ('constant', {}),
    ('wsd', {**DECAY, 'decay_shape': 'linear'}),
    ('wsdc', {**DECAY, 'decay_shape': 'linear', 'constant_steps': 70}),
    ('cosine_restarts', {'final_fraction': 0.05, **RESTARTS}),
    ('displaced_cosine_restarts', {**DECAY, **RESTARTS}),
  ],
)
def test_schedules(name, expected):
  old = changed(LANGUAGE, {'optimizer.schedule': name})
  assert lifted(old)['schedule'] == {'kind': name, **WARMUP, **expected}
  assert tree_of(parse_stored(old))['schedule'] == {'kind': name, **WARMUP, **expected}


@pytest.mark.parametrize(
  'source, expected',
  [
    (
      'text_files',
      {'path': 'somewhere', 'validation_path': 'elsewhere', 'validation_share': 0.06},
    ),
    ('c4/en', {'kind': 'tfds', 'name': 'c4/en', 'data_dir': 'somewhere'}),
  ],
)
def test_sources_of_text(source, expected):
  old = changed(LANGUAGE, {'data.source': source, 'data.tokenizer': 'a/tokenizer.json'})
  found = lifted(old)['data']
  assert found['source'] == {'kind': source} | expected
  assert found['tokenizer'] == {'kind': 'file', 'path': 'a/tokenizer.json'}


@pytest.mark.parametrize(
  'fields, kept',
  [
    ({}, False),
    ({'optimizer.decay_rules': [['norm/scale$', 0.0], ['.*', 1.0]]}, False),
    # These have biases or rationals, which the older rules let decay.
    (
      {
        'model.linear': 'quadratic',
        'optimizer.decay_rules': [['norm/scale$', 0.0], ['.*', 1.0]],
      },
      True,
    ),
    ({'optimizer.decay_rules': [['.*', 1.0]]}, True),
  ],
)
def test_rules_of_decay_that_say_what_the_kinds_say(fields, kept):
  old = changed(LANGUAGE, fields)
  rules = old['optimizer']['decay_rules']
  assert lifted(old)['optimizer']['decay_rules'] == (rules if kept else [])
