"""Networks on rows of version 0: what each becomes, written out by hand."""

import pytest

from elas_jax.config.migrate import lifted
from elas_jax.config.parsing import parse_stored
from elas_jax.config.schema import tree as tree_of
from tests.config.old_trees import LANGUAGE, ROWS, changed

RANGE = {'grid': 3, 'grid_min': -1.5, 'grid_max': 1.25}
ENDS = {'data_norm': 'layer', 'init_scale': 0.5}
EXACT = {'kind': 'gelu', 'approximate': False}


def test_a_network_on_rows():
  found = lifted(ROWS)
  assert found['model'] == {
    'architecture': {'kind': 'stack'},
    'input_shape': [8, 8, 1],
    'outputs': 10,
    'width': 64,
    'depth': 1,
    'linear': {'kind': 'dense'},
    'activation': {'kind': 'gelu', 'approximate': True},
    'norm': {'kind': 'none'},
    'use_bias': True,
    'init': 'he',
    'label_smoothing': 0.1,
    'param_dtype': 'float32',
  }
  assert found['data'] == {
    'source': {'kind': 'digits', 'validation_share': 0.3},
    'augment': 'none',
    'batch_size': 64,
    'cache_dir': 'cache',
    'read_threads': 1,
    'prefetch': 8,
    'accept_changed': False,
  }
  assert found['optimizer']['decay_rules'] == [['.*', 0.5]]
  assert (found['task'], found['seed']) == ('classification', 3)
  parse_stored(ROWS)


DRAWN = {'examples': 400, 'noise': 0.01, 'draw_seed': 2, 'validation_share': 0.3}


@pytest.mark.parametrize(
  'source, expected',
  [
    ('bessel', {'kind': 'function', 'name': 'bessel', **DRAWN}),
    ('step', {'kind': 'function', 'name': 'step', **DRAWN}),
    ('rings', {'kind': 'shape', 'name': 'rings', **DRAWN}),
    ('mnist', {'kind': 'tfds_images', 'name': 'mnist', 'data_dir': 'sets'}),
  ],
)
def test_sources_of_rows(source, expected):
  assert lifted(changed(ROWS, {'data.source': source}))['data']['source'] == expected


FAMILIES = {
  'bspline': {'order': 2, 'activation': EXACT, **RANGE},
  'chebyshev': {'order': 2},
  'polynomial': {'order': 2, 'polynomial': 'laguerre'},
  'fourier': {'grid': 3},
  'wavelet': {'wavelet': 'morlet', **RANGE},
  'fast': {'activation': EXACT, **RANGE},
  'faster': RANGE,
  'bsrbf': {'order': 2, 'activation': EXACT, **RANGE},
  'relu': {'order': 2, **RANGE},
  'af': {
    'order': 2,
    'activation': EXACT,
    **RANGE,
    'function': 'quad2',
    'reduction': 'global_attn',
    'combine': 'sum',
    'function_norm': 'none',
  },
  'skan': {'edge': 'sin'},
}
FAMILIES['selectable'] = {
  **FAMILIES['af'],
  'polynomial': 'laguerre',
  'wavelet': 'morlet',
  'edge': 'sin',
  'pool': 'fast,af',
  'selection': 'node',
  'phase': 'selective',
  'top_k': 1,
}


@pytest.mark.parametrize('family', FAMILIES)
def test_kan_families(family):
  expected = {'kind': f'kan_{family}', **FAMILIES[family], **ENDS}
  old = changed(ROWS, {'model.layer': family, 'model.kan.param_dtype': 'bfloat16'})
  found = lifted(old)['model']
  assert found['linear'] == expected
  assert found['param_dtype'] == 'bfloat16'
  assert tree_of(parse_stored(old))['model']['linear'] == expected
  decoder = changed(LANGUAGE, {'model.linear': f'kan_{family}'})
  assert lifted(decoder)['model']['linear'] == expected


VIT = {
  'kind': 'vit',
  'patch': 2,
  'attention': {'kind': 'mha', 'heads': 4},
  'feed_forward': {'kind': 'mlp', 'activation': {'kind': 'gelu', 'approximate': True}},
  'position': {'kind': 'learned', 'length': 0},
  'expansion': 4,
  'linear_in': 'all',
  'attention_bias': True,
}


@pytest.mark.parametrize(
  'fields, architecture, norm',
  [
    ({'architecture': 'convnet', 'norm': 'batch'}, {'kind': 'convnet'}, (1e-5, 0.9)),
    ({'architecture': 'resnet', 'norm': 'layer'}, {'kind': 'resnet'}, (1e-5,)),
    # Its norms were its own, whatever the field said.
    (
      {'architecture': 'vit', 'norm': 'none'},
      VIT,
      (1e-6,),
    ),
  ],
)
def test_architectures_and_norms(fields, architecture, norm):
  old = changed(ROWS, {f'model.{name}': value for name, value in fields.items()})
  model = lifted(old)['model']
  assert model['architecture'] == architecture
  kind = 'batch' if len(norm) == 2 else 'layer'
  assert model['norm'] == {'kind': kind} | dict(zip(('epsilon', 'momentum'), norm))
  parse_stored(old)
