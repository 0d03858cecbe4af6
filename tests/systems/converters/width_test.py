"""Scores and cut feed-forwards of drawn weights against NumPy."""

import dataclasses
import math

import numpy as np
import pytest

from elas_jax.common.errors import UserError
from elas_jax.systems.converters.width import Width
from elas_jax.systems.feed_forwards import FEED_FORWARDS
from elas_jax.systems.linears import LINEARS
from tests.conformance.hosts import batch, language, network, transformer
from tests.conftest import thinned
from tests.systems.converters.drawn import at, converted, drawn, outputs

LINEAR = {
  'dense': LINEARS['dense'](),
  'masked': LINEARS['masked'](),
  'low_rank': LINEARS['low_rank'](rank=3),
  'lora': LINEARS['lora'](rank=4, alpha=6.0),
}
GLU = FEED_FORWARDS['glu']()


def matrix(p):
  """W of one map in float64."""
  p = {name: np.asarray(x, np.float64) for name, x in p.items()}
  if 'mask' in p:
    return p['kernel'] * p['mask']
  low_rank = p['a'] @ p['b'] if 'a' in p else 0
  return p['kernel'] + 6.0 / 4 * low_rank if 'kernel' in p else low_rank


def feed_forward(variables, path):
  """By map its W, and by map_bias its bias, all with the axis of the layers."""
  p = at(variables['params'], path)
  buffers = variables['buffers']
  for name in path.split('/'):
    buffers = buffers.get(name, {})
  found = {name: matrix(one | buffers.get(name, {})) for name, one in p.items()}
  biases = {f'{name}_bias': one['bias'] for name, one in p.items() if 'bias' in one}
  return found | {name: np.float64(x) for name, x in biases.items()}


def score(w_DxF, how):
  if how == 'largest':
    return np.abs(w_DxF).max(0)
  return np.sort(w_DxF, 0)[-1] + np.abs(np.sort(w_DxF, 0)[0])


MODELS = {
  **{
    f'glu_{name}': lambda x=x: language(linear=x, feed_forward=GLU)
    for name, x in LINEAR.items()
  },
  'mlp': language,
  'vit': transformer,
}


@pytest.mark.parametrize('how', ['peak_to_peak', 'largest'])
@pytest.mark.parametrize('name', thinned(MODELS, 'glu_lora', 'mlp'))
def test_units_of_the_largest_scores_stay(name, how):
  config = MODELS[name]()
  ratio = 1.0 if name == 'vit' else 1.3
  F = math.ceil(ratio * 8)
  variables = drawn(config, masked=0.2)
  new_config, new, said = converted(Width(ratio, how), config, variables)
  assert new_config.model.hidden[1] == F and f'16 units -> {F}, with ' in said[0]
  path = ('network/' if name == 'vit' else '') + 'layers/feed_forward'
  old, now = (feed_forward(x, path) for x in (variables, new))
  assert now.keys() == old.keys()
  for n in range(len(old['down'])):
    scores = sum(score(old[name][n], how) for name in old if name in ('gate', 'up'))
    keep = sorted(np.argsort(-scores)[:F])
    for name, w in old.items():
      if name == 'down':
        expected = w[n][keep]
      else:
        expected = w[n] if name == 'down_bias' else w[n][..., keep]
      np.testing.assert_allclose(now[name][n], expected, rtol=1e-6, atol=1e-7)


def test_units_that_do_nothing_go():
  """The outputs stay: every other unit of the large model has no weights in."""
  config = language(feed_forward=GLU)
  variables = drawn(config)
  p = at(variables['params'], 'layers/feed_forward')
  for name in ('gate', 'up'):
    p[name]['kernel'] = p[name]['kernel'].at[..., ::2].multiply(0)
  new_config, new, said = converted(Width(1.0), config, variables)
  assert '16 units -> 8, with 100.00% of the scores' in said[0]
  rows = batch(config)
  before, after = outputs(config, variables, rows), outputs(new_config, new, rows)
  np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5)


def test_the_published_sizes():
  """Of Llama-3.2-1B: 40 % of 8192 pairs gone, rounded down, are 4916 left."""
  assert Width().hidden(2048) == 8192 - int(0.4 * 8192)
  assert Width(2.0).hidden(2048) == 4096 and Width(1.4).hidden(5) == 7


@pytest.mark.parametrize(
  ('converter', 'config', 'message'),
  [
    (
      Width(2.0),
      language(),
      '^converter.ratio=2.0: must be below 2, that of model.feed_fo',
    ),
    (Width(0.0), language(), '^converter.ratio=0.0: must be above 0$'),
    (Width(1.0), network(), "^model.architecture: must be 'vit', or the task 'language'"),
    (
      Width(1.5),
      transformer(),
      '^converter.ratio=1.5: makes a width of 12; must be a multiple of model.width=8',
    ),
    (
      Width(1.0),
      language(linear=LINEARS['sltrain'](rank=4)),
      "^model.linear='sltrain': must be one of 'dense', 'low_rank', 'lora', 'masked' for",
    ),
    (
      Width(1.0),
      language(feed_forward=FEED_FORWARDS['kat'](groups=2)),
      "^model.feed_forward='kat': must be one of 'glu', 'mlp', 'relu2_two_four' to lose",
    ),
  ],
)
def test_what_cannot_be_is_refused(converter, config, message):
  with pytest.raises(UserError, match=message):
    converter.check('converter', config)


def test_a_pruned_feed_forward_needs_a_multiple_of_four():
  pruned = FEED_FORWARDS['relu2_two_four'](dense_steps=0)
  config = language(feed_forward=pruned)
  assert converted(Width(1.5), config, drawn(config))[0].model.feed_forward_width == 12
  with pytest.raises(UserError, match='^model.feed_forward_width=11: must be a multiple o'):
    converted(Width(1.3), config, drawn(config))


def test_a_rank_beyond_the_new_width_is_refused():
  config = language(linear=LINEARS['low_rank'](rank=8))
  config = dataclasses.replace(config, model=dataclasses.replace(config.model, width=8))
  with pytest.raises(UserError, match='^model.linear.rank=8: must be at most 4'):
    converted(Width(0.5), config, drawn(config))
