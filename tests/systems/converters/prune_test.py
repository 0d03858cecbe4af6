"""Masks of drawn weights against plain sorting, and what the pruned model computes."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elas_jax.common.errors import UserError
from elas_jax.run.conversion import linear_maps
from elas_jax.systems.architectures import ARCHITECTURES
from elas_jax.systems.converters.essential import Essential, drop_point
from elas_jax.systems.converters.merge import Merge
from elas_jax.systems.converters.prune import Prune, of_groups
from elas_jax.systems.converters.pruning import smallest
from elas_jax.systems.linears import LINEARS
from tests.conformance.hosts import batch, language, network, transformer
from tests.conftest import thinned
from tests.systems.converters.drawn import at, converted, drawn, outputs


def kernels(config, variables):
  """Path -> (I, O) of every map in float64, of stacked layers one by one."""
  found = {}
  for path in sorted(linear_maps(config.model)):
    if path not in ('embedding', 'head', 'position'):
      kernel = np.float64(at(variables['params'], path)['kernel'])
      for n, one in enumerate(kernel if kernel.ndim == 3 else kernel[None]):
        found[path, n] = one
  return found


def kept(config, variables):
  masks = {}
  for path, n in kernels(config, variables):
    mask = np.asarray(at(variables['buffers'], path)['mask'])
    masks[path, n] = mask[n] if mask.ndim == 3 else mask
  return masks


@pytest.mark.parametrize('sparsity', [0.0, 0.3, 0.9])
def test_the_smallest_of_all_maps_go(sparsity):
  config = language()
  variables = drawn(config)
  old = kernels(config, variables)
  new_config, new, said = converted(Prune(sparsity), config, variables)
  everything = np.sort(np.abs(np.concatenate([w.ravel() for w in old.values()])))
  count = round(sparsity * everything.size)
  least = everything[count] if count < everything.size else np.inf
  for key, mask in kept(new_config, new).items():
    np.testing.assert_array_equal(mask, np.abs(old[key]) >= least)
    w = kernels(new_config, new)[key]
    np.testing.assert_array_equal(w, np.where(mask, old[key], 0))
  assert said[0].startswith(f'{count / everything.size:.2%} of the weights')
  assert new_config.model.linear == LINEARS['masked']()


def test_of_each_map_alone():
  config = network()
  variables = drawn(config)
  old = kernels(config, variables)
  new_config, new, _ = converted(Prune(0.75, 'map'), config, variables)
  for key, mask in kept(new_config, new).items():
    w = np.abs(old[key])
    gone = round(0.75 * w.size)
    np.testing.assert_array_equal(mask, w >= np.sort(w, axis=None)[gone])


def test_a_tie_takes_the_first():
  scores = np.array([[2.0, 1.0, 1.0], [1.0, 0.0, 3.0]])
  np.testing.assert_array_equal(smallest(scores, 3), [[0, 1, 1], [0, 1, 0]])
  assert not smallest(scores, 0).any() and smallest(scores, 6).all()


@pytest.mark.parametrize('n, m', [(2, 4), (1, 4), (3, 8)])
def test_n_of_m_inputs_stay(n, m):
  w = np.round(np.random.default_rng(0).normal(size=(2, 16, 5)), 1)  # with ties
  mask = of_groups(w, n, m)
  for layer, first, output in np.ndindex(2, 16 // m, 5):
    group = slice(first * m, first * m + m)
    sizes = np.abs(w[layer, group, output])
    order = sorted(range(m), key=lambda i: (-sizes[i], i))
    expected = np.isin(np.arange(m), order[:n])
    np.testing.assert_array_equal(mask[layer, group, output], expected)
    assert mask[layer, group, output].sum() == n


def test_a_pattern_of_a_model():
  convnet = ARCHITECTURES['convnet']()
  for config in (language(), network(architecture=convnet, input_shape=(8, 8, 4))):
    new_config, new, said = converted(Prune(pattern='2:4'), config, drawn(config))
    for mask in jax.tree.leaves(new['buffers']):
      *before, I, O = mask.shape
      assert (mask.reshape(*before, I // 4, 4, O).sum(-2) == 2).all()
    assert said[0].startswith('50.00% of')


MODELS = {
  'decoder': language,
  'low_rank': lambda: language(linear=LINEARS['low_rank'](rank=3)),
  'stack': network,
  'vit': transformer,
}


@pytest.mark.parametrize('name', thinned(MODELS, 'low_rank', 'stack'))
def test_outputs_are_those_of_the_zeros(name):
  """Of the dense model in which these weights have been set to zero."""
  config = MODELS[name]()
  new_config, new, _ = converted(Prune(0.4), config, drawn(config))
  rows = batch(config)
  dense_config, dense, _ = converted(Merge(), new_config, new)
  assert not jax.tree.leaves(dense['buffers'])
  before = outputs(new_config, new, rows)
  np.testing.assert_allclose(outputs(dense_config, dense, rows), before, atol=1e-5)
  whole = outputs(config, drawn(config), rows)
  assert np.abs(before - whole).max() > 1e-2


def test_zeros_stay_when_it_is_pruned_again():
  config = language(linear=LINEARS['masked']())
  variables = drawn(config, masked=0.5)
  for share in (0.2, 0.7):
    _, new, _ = converted(Prune(share), config, variables)
    pairs = zip(*map(jax.tree.leaves, (variables['buffers'], new['buffers'])))
    assert all((old >= now).all() for old, now in pairs)
    zeros = np.mean([1 - np.mean(x) for x in jax.tree.leaves(new['buffers'])])
    assert zeros > 0.65 if share > 0.5 else 0.4 < zeros < 0.6


@pytest.mark.parametrize(
  ('converter', 'linear', 'message'),
  [
    (Prune(1.0), 'dense', '^converter.sparsity=1.0: must be at least 0 and below 1$'),
    (Prune(pattern='4:2'), 'dense', "^converter.pattern='4:2': must be '' or 'N:M' with"),
    (Prune(pattern='x'), 'dense', "^converter.pattern='x': must be '' or 'N:M' with"),
    (Prune(), 'cola', "^model.linear='cola': must be one of 'dense', 'low_rank', 'lora'"),
    (Essential(tolerance=0.0), 'dense', '^converter.tolerance=0.0: must be above 0$'),
    (Essential(), 'lost', "^model.linear='lost': must be one of 'dense', 'low_rank'"),
  ],
)
def test_what_cannot_be_is_refused(converter, linear, message):
  with pytest.raises(UserError, match=message):
    converter.check('converter', language(linear=LINEARS[linear]()))


def test_inputs_that_no_pattern_divides_stay_whole():
  config = network(input_shape=(7, 1, 1))
  _, new, said = converted(Prune(pattern='2:4'), config, drawn(config))
  assert said[0] == 'left whole, as their inputs are no multiple of 4: network/layer_0'
  masks = new['buffers']['network']
  assert masks['layer_0']['mask'].all() and masks['head']['mask'].mean() == 0.5
  with pytest.raises(
    UserError, match='^converter.pattern=.2:3.: network/head has 8 inputs'
  ):
    converted(Prune(pattern='2:3'), config, drawn(config))


@pytest.mark.parametrize('limit', [0.0, 0.13, 0.349, 0.5, 0.82, 0.95, 1.0])
def test_the_drop_is_found_by_bisection(limit):
  fits = lambda share: share <= limit
  curve = {n / 10: n / 10 for n in range(1, 10)}
  found = drop_point(curve, fits, fits)
  assert found <= limit <= found + 0.1 / 2**6 + 1e-9


def test_essential_sparsity_is_where_the_perplexity_leaves_its_tolerance():
  """The share that is found fits, and a little more does not, by the loss in NumPy."""
  config = language()
  variables = drawn(config)
  rows = batch(config)
  tolerance = 0.02
  new_config, new, said = converted(Essential(tolerance, 9, 64), config, variables)

  def perplexity(config, variables):
    logits = np.float64(outputs(config, variables, rows))
    logits -= logits.max(-1, keepdims=True)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    tokens = rows['tokens']
    return np.exp(-np.take_along_axis(log_p, tokens[:, 1:, None], -1).mean())

  dense = perplexity(config, variables)
  share = float(re.search(r'essential sparsity ([\d.]+)%', said[1])[1]) / 100
  assert 0.01 < share < 0.9
  assert perplexity(new_config, new) <= (1 + tolerance) * dense * (1 + 1e-5)
  more = share + 0.1 / 2**6 + 1e-4
  after = perplexity(*converted(Prune(more), config, variables)[:2])
  assert after > (1 + tolerance) * dense
  assert said[0].startswith(f'perplexity {dense:.4g}; of the pruned model at a sparsity of')
  zeros = 1 - jnp.mean(
    jnp.concatenate([x.ravel() for x in jax.tree.leaves(new['buffers'])])
  )
  np.testing.assert_allclose(zeros, share, atol=2e-3)
