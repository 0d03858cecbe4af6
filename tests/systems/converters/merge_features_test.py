"""Rounds of merging by loops over pairs, and duplicates that merge without loss."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elas_jax.common.errors import UserError
from elas_jax.systems.activations import ACTIVATIONS
from elas_jax.systems.architectures import ARCHITECTURES
from elas_jax.systems.converters.merge_features import MergeFeatures, Units, merge
from elas_jax.systems.feed_forwards import FEED_FORWARDS
from elas_jax.systems.linears import LINEARS
from elas_jax.systems.norms import NORMS
from tests.conformance.hosts import batch, language, network, transformer
from tests.conftest import thinned
from tests.systems.converters.drawn import at, converted, drawn, outputs


def by_loops(w_in, bias, w_out, beta, summed, rounds):
  """One layer with rows w_in (I, F), bias (F,) and w_out (F, O): lists of units."""
  units = [(w_in[:, k], bias[k], w_out[k], 1) for k in range(len(bias))]
  for _ in range(rounds):
    far = {
      (i, j): sum((a - b) ** 2 for a, b in zip(units[i][0], units[j][0]))
      + sum((a - b) ** 2 for a, b in zip(units[i][2], units[j][2]))
      for i in range(len(units))
      for j in range(i + 1, len(units))
    }
    if not far or min(far.values()) > beta * max(far.values()):
      return units, True
    i, j = min(far, key=far.get)
    (in_i, b_i, out_i, c_i), (in_j, b_j, out_j, c_j) = units[i], units[j]
    mean = lambda x, y, c=(c_i, c_j): (c[0] * x + c[1] * y) / sum(c)
    total = lambda x, y: x + y
    rows, columns = (total, mean) if summed == 'rows' else (mean, total)
    units[i] = rows(in_i, in_j), rows(b_i, b_j), columns(out_i, out_j), c_i + c_j
    del units[j]
  return units, False


def stop(w_in, bias, w_out, beta, summed):
  """How many rounds have a pair."""
  rounds = 0
  while not by_loops(w_in, bias, w_out, beta, summed, rounds + 1)[1]:
    rounds += 1
  return rounds


@pytest.mark.parametrize('summed', ['rows', 'columns'])
@pytest.mark.parametrize('beta', [0.2, 0.3])
def test_rounds_by_loops(beta, summed):
  """Two layers in step: as many rounds as both have, and each on its own for its count."""
  random = np.random.default_rng(5)  # by which they differ in that
  layers, arrays, alone = [], {}, {}
  for n in range(2):
    # Some units are near to others.
    like, apart = random.integers(0, 4, 10), 0.3 + 0.2 * n
    draw = lambda *shape, like=like, apart=apart: (
      random.normal(size=shape)[..., like] + apart * random.normal(size=(*shape[:-1], 10))
    )
    x = draw(5, 4), draw(4), draw(3, 4).T
    arrays |= {('in', n): x[0], ('bias', n): x[1], ('out', n): x[2]}
    layers.append(Units(f'layer[{n}]', (('in', n), ('bias', n)), (('out', n),)))
    alone[n] = stop(*x, beta, summed)
  assert len(set(alone.values())) == 2 and min(alone.values()) > 0
  found, complexity = merge(arrays, tuple(layers), beta, summed, lambda width: True)
  assert complexity == {f'layer[{n}]': 10 - rounds for n, rounds in alone.items()}
  for n in range(2):
    x = (arrays[name, n] for name in ('in', 'bias', 'out'))
    units, _ = by_loops(*x, beta, summed, min(alone.values()))
    for part, name in enumerate(('in', 'bias', 'out')):
      expected = np.stack([unit[part] for unit in units])
      now = found[name, n].T if name == 'in' else found[name, n]
      np.testing.assert_allclose(now, expected, rtol=1e-9, atol=1e-12)
  (even, _) = merge(arrays, tuple(layers), beta, summed, lambda width: width % 2 == 0)
  left = 10 - min(alone.values())
  assert even['out', 0].shape[0] == left + left % 2


RELU, GELU = ACTIVATIONS['relu'](), ACTIVATIONS['gelu']()
CHAIN = {'activation': RELU, 'depth': 2}
MODELS = {
  'decoder': (lambda: language(feed_forward=FEED_FORWARDS['mlp'](RELU)), 'rows', 8),
  'gelu': (lambda: language(feed_forward=FEED_FORWARDS['mlp'](GELU)), 'columns', 8),
  'glu': (lambda: language(feed_forward=FEED_FORWARDS['glu']()), 'columns', 8),
  'vit': (transformer, 'columns', 8),
  'stack': (lambda: network(**CHAIN), 'rows', 4),
  'convnet': (
    lambda: network(architecture=ARCHITECTURES['convnet'](), **CHAIN),
    'rows',
    4,
  ),
}


def doubled(config, variables):
  """Units 2 k + 1 become 2 k in all hidden layers, arrays that make and that read them."""
  params = variables['params']
  twice = lambda x, axis: jnp.repeat(
    jnp.take(x, jnp.arange(0, x.shape[axis], 2), axis), 2, axis
  )
  if config.model.stack:
    where = 'network/layers' if config.task != 'language' else 'layers'
    parts = at(params, f'{where}/feed_forward')
    for name, p in parts.items():
      for below, x in p.items():
        if name != 'down':
          p[below] = twice(x, -1)
        elif below == 'kernel':
          p[below] = twice(x, -2)
    return variables
  for n, name in enumerate(('layer_0', 'layer_1', 'head')):
    p = params['network'][name]
    if n:
      p['kernel'] = twice(p['kernel'], -2)
    if name != 'head':
      p |= {below: twice(x, -1) for below, x in p.items()}
  return variables


@pytest.mark.parametrize('name', thinned(MODELS, 'glu', 'stack'))
def test_duplicates_merge_without_loss(name):
  make, summed, width = MODELS[name]
  config = make()
  variables = doubled(config, drawn(config))
  new_config, new, said = converted(MergeFeatures(1e-9, summed), config, variables)
  model = new_config.model
  assert (model.hidden[1] if model.stack else model.width) == width
  assert said[0].count(f' {width}') == (1 if name == 'vit' else 2)
  assert said[1] == f'{2 * width} units -> {width}, merged in step'
  rows = batch(config)
  before, after = outputs(config, variables, rows), outputs(new_config, new, rows)
  assert np.ptp(before) > 0.1
  np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)


def test_what_has_no_near_units_stays():
  config = network(**CHAIN)
  variables = drawn(config)
  new_config, new, said = converted(MergeFeatures(1e-6), config, variables)
  assert new_config == config and said[1] == '8 units -> 8, merged in step'
  jax.tree.map(np.testing.assert_array_equal, new, variables)


@pytest.mark.parametrize(
  ('converter', 'config', 'message'),
  [
    (MergeFeatures(0.0), network(), '^converter.beta=0.0: must be between 0 and 1$'),
    (
      MergeFeatures(),
      language(),
      "^converter.summed='rows': must be 'columns' with the activation 'relu2'; only an un",
    ),
    (
      MergeFeatures(),
      language(feed_forward=FEED_FORWARDS['glu'](RELU)),
      "^converter.summed='rows': must be 'columns' with a feed-forward 'glu'; only an unga",
    ),
    (
      MergeFeatures(),
      network(norm=NORMS['batch'](), **CHAIN),
      "^model.norm='batch': must be 'none', since it stands between units",
    ),
    (
      MergeFeatures(),
      network(architecture=ARCHITECTURES['resnet'](), activation=RELU),
      "^model.architecture='resnet': must be 'convnet', 'vit', or 'stack' with a hidden",
    ),
    (
      MergeFeatures(summed='columns'),
      language(feed_forward=FEED_FORWARDS['mlp'](ACTIVATIONS['poly_norm']())),
      "^converter: the activation 'poly_norm' must be another, since in its outputs units",
    ),
    (MergeFeatures(), network(depth=0), "^model.architecture='stack': must be 'convnet'"),
    (
      MergeFeatures(),
      network(linear=LINEARS['masked']()),
      "^model.linear='masked': must be 'dense' for units to be merged; the converter",
    ),
  ],
)
def test_what_cannot_be_is_refused(converter, config, message):
  with pytest.raises(UserError, match=message):
    converter.check('converter', config)


def test_a_vit_comes_to_multiples_of_its_width():
  """Four copies among F = 3 D units leave 20, of which F / D would be none."""
  config = transformer()
  kind = dataclasses.replace(config.model.architecture, expansion=3)
  config = dataclasses.replace(
    config, model=dataclasses.replace(config.model, architecture=kind)
  )
  variables = drawn(config)
  parts = at(variables['params'], 'network/layers/feed_forward')
  copy = jnp.r_[jnp.arange(20), jnp.arange(4)]
  parts['up'] = {below: x[..., copy] for below, x in parts['up'].items()}
  parts['down']['kernel'] = parts['down']['kernel'][:, copy]
  new_config, new, said = converted(MergeFeatures(1e-9, 'columns'), config, variables)
  assert new_config.model.architecture.expansion == 3
  assert said[0].endswith(' 20') and said[1] == '24 units -> 24, merged in step'
